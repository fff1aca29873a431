//! Functions of numbers, by a library that gives the same digits on each machine.

use super::arith::number;
use super::fail::Thrown;
use super::natives::Native;
use super::natives::Run;
use super::value::{Num, Val};

const fn native(name: &'static str, arity: usize, run: Run) -> Native {
    Native { name, arity, run }
}

pub(crate) static MATHS: &[Native] = &[
    native("acos", 0, |_, v, _| one(&v, libm::acos)),
    native("acosh", 0, |_, v, _| one(&v, libm::acosh)),
    native("asin", 0, |_, v, _| one(&v, libm::asin)),
    native("asinh", 0, |_, v, _| one(&v, libm::asinh)),
    native("atan", 0, |_, v, _| one(&v, libm::atan)),
    native("atanh", 0, |_, v, _| one(&v, libm::atanh)),
    native("cbrt", 0, |_, v, _| one(&v, libm::cbrt)),
    native("cos", 0, |_, v, _| one(&v, libm::cos)),
    native("cosh", 0, |_, v, _| one(&v, libm::cosh)),
    native("erf", 0, |_, v, _| one(&v, libm::erf)),
    native("erfc", 0, |_, v, _| one(&v, libm::erfc)),
    native("exp", 0, |_, v, _| one(&v, libm::exp)),
    native("exp10", 0, |_, v, _| one(&v, libm::exp10)),
    native("exp2", 0, |_, v, _| one(&v, libm::exp2)),
    native("expm1", 0, |_, v, _| one(&v, libm::expm1)),
    native("fabs", 0, |_, v, _| one(&v, libm::fabs)),
    native("j0", 0, |_, v, _| one(&v, libm::j0)),
    native("j1", 0, |_, v, _| one(&v, libm::j1)),
    native("log", 0, |_, v, _| one(&v, libm::log)),
    native("log10", 0, |_, v, _| one(&v, libm::log10)),
    native("log1p", 0, |_, v, _| one(&v, libm::log1p)),
    native("log2", 0, |_, v, _| one(&v, libm::log2)),
    native("rint", 0, |_, v, _| one(&v, libm::rint)),
    native("sin", 0, |_, v, _| one(&v, libm::sin)),
    native("sinh", 0, |_, v, _| one(&v, libm::sinh)),
    native("sqrt", 0, |_, v, _| one(&v, libm::sqrt)),
    native("tan", 0, |_, v, _| one(&v, libm::tan)),
    native("tanh", 0, |_, v, _| one(&v, libm::tanh)),
    native("tgamma", 0, |_, v, _| one(&v, libm::tgamma)),
    native("y0", 0, |_, v, _| one(&v, libm::y0)),
    native("y1", 0, |_, v, _| one(&v, libm::y1)),
    native("gamma", 0, |_, v, _| one(&v, libm::lgamma)),
    native("lgamma", 0, |_, v, _| one(&v, libm::lgamma)),
    native("nearbyint", 0, |_, v, _| one(&v, libm::rint)),
    native("floor", 0, |_, v, _| rounded(&v, libm::floor)),
    native("ceil", 0, |_, v, _| rounded(&v, libm::ceil)),
    native("round", 0, |_, v, _| rounded(&v, libm::round)),
    native("trunc", 0, |_, v, _| rounded(&v, libm::trunc)),
    native("atan2", 2, |_, _, [a, b, _]| two(&a, &b, libm::atan2)),
    native("copysign", 2, |_, _, [a, b, _]| two(&a, &b, libm::copysign)),
    native("fdim", 2, |_, _, [a, b, _]| two(&a, &b, libm::fdim)),
    native("fmax", 2, |_, _, [a, b, _]| two(&a, &b, libm::fmax)),
    native("fmin", 2, |_, _, [a, b, _]| two(&a, &b, libm::fmin)),
    native("fmod", 2, |_, _, [a, b, _]| two(&a, &b, libm::fmod)),
    native("hypot", 2, |_, _, [a, b, _]| two(&a, &b, libm::hypot)),
    native("nextafter", 2, |_, _, [a, b, _]| two(&a, &b, libm::nextafter)),
    native("pow", 2, |_, _, [a, b, _]| two(&a, &b, libm::pow)),
    native("remainder", 2, |_, _, [a, b, _]| two(&a, &b, libm::remainder)),
    native("nexttoward", 2, |_, _, [a, b, _]| two(&a, &b, libm::nextafter)),
    native("drem", 2, |_, _, [a, b, _]| two(&a, &b, libm::remainder)),
    native("ldexp", 2, |_, _, [a, b, _]| two(&a, &b, |a, b| libm::ldexp(a, exponent(b)))),
    native("scalb", 2, |_, _, [a, b, _]| two(&a, &b, |a, b| a * libm::exp2(b))),
    native("scalbln", 2, |_, _, [a, b, _]| two(&a, &b, |a, b| libm::scalbn(a, exponent(b)))),
    native("jn", 2, |_, _, [a, b, _]| two(&a, &b, |a, b| libm::jn(exponent(a), b))),
    native("yn", 2, |_, _, [a, b, _]| two(&a, &b, |a, b| libm::yn(exponent(a), b))),
    native("fma", 3, |_, _, [a, b, c]| {
        let (a, b, c) = (number(&a)?.float(), number(&b)?.float(), number(&c)?.float());
        Ok(Val::from(libm::fma(a, b, c)))
    }),
    native("logb", 0, |_, v, _| {
        one(&v, |x| match x {
            0.0 => f64::NEG_INFINITY,
            x if !x.is_finite() => x.abs(),
            x => f64::from(libm::ilogb(x)),
        })
    }),
    native("significand", 0, |_, v, _| {
        one(&v, |x| match x == 0.0 || !x.is_finite() {
            true => x,
            false => libm::scalbn(x, -libm::ilogb(x)),
        })
    }),
    native("frexp", 0, |_, v, _| {
        let (part, exponent) = libm::frexp(number(&v)?.float());
        Ok([Val::from(part), Val::from(i64::from(exponent))].into_iter().collect())
    }),
    native("modf", 0, |_, v, _| {
        let (part, whole) = libm::modf(number(&v)?.float());
        Ok([Val::from(part), Val::from(whole)].into_iter().collect())
    }),
    native("lgamma_r", 0, |_, v, _| {
        let (value, sign) = libm::lgamma_r(number(&v)?.float());
        Ok([Val::from(value), Val::from(i64::from(sign))].into_iter().collect())
    }),
];

fn one(value: &Val, run: fn(f64) -> f64) -> Result<Val, Thrown> {
    Ok(Val::from(run(number(value)?.float())))
}

fn two(a: &Val, b: &Val, run: fn(f64, f64) -> f64) -> Result<Val, Thrown> {
    let (a, b) = (number(a)?, number(b)?);
    Ok(Val::from(run(a.float(), b.float())))
}

/// Whole numbers are whole already.
fn rounded(value: &Val, run: fn(f64) -> f64) -> Result<Val, Thrown> {
    match number(value)? {
        Num::Float(n) => Ok(Val::from(run(n))),
        whole => Ok(Val::Num(whole)),
    }
}

/// Rounds towards the bounds of the type, which is what is wanted here.
fn exponent(number: f64) -> i32 {
    number as i32
}

/// The number that a text is for `tonumber`; `None` also where it is outside 64 bits.
pub(crate) fn parse(text: &str) -> Option<Val> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_negative = text.starts_with('-');
    match unsigned.to_ascii_lowercase().as_str() {
        "nan" => return Some(Val::from(f64::NAN)),
        "infinity" => return Some(Val::from(if is_negative { f64::NEG_INFINITY } else { f64::INFINITY })),
        _ => {}
    }
    let is_number = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    match is_number {
        true => Num::parse(text.strip_prefix('+').unwrap_or(text)).map(Val::Num),
        false => None,
    }
}
