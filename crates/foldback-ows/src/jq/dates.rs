//! Dates in UTC: from seconds since 1970 to broken down time, to texts, and back.

use super::bounds::Meter;
use super::fail::{Thrown, fail, quoting};
use super::value::{Num, Val};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Years that are looked at: all that a text of four digits can name, and some more.
const SECONDS_MAX: f64 = 1e14;

/// Broken down time, as C has it; the month from 0.
#[derive(Clone, Copy, Debug, Default)]
struct Time {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: f64,
    weekday: i64,
    yearday: i64,
}

/// Runs one of the filters about dates.
pub(crate) fn run(meter: &Meter, value: &Val, what: &Val, with: &Val) -> Result<Val, Thrown> {
    let name: &str = match what {
        Val::Str(name) => name,
        _ => "",
    };
    meter.pay(8 + if let Val::Str(text) = with { text.len() as u64 } else { 0 })?;
    match name {
        "gmtime" => {
            let Val::Num(number) = value else {
                return Err(fail("gmtime() requires numeric inputs"));
            };
            Ok(from_seconds(number.float())?.to_val())
        }
        "mktime" => {
            let Val::Arr(_) = value else {
                return Err(fail("mktime requires array inputs"));
            };
            let time = time_of(value).ok_or_else(|| fail("mktime requires parsed datetime inputs"))?;
            Ok(Val::from(time.seconds()))
        }
        "strftime" => {
            let time = match value {
                Val::Num(number) => Some(from_seconds(number.float())?),
                // A month of 14, a day of 0: as the date that it comes to.
                Val::Arr(_) => time_of(value).map(|time| from_seconds(time.seconds() as f64)).transpose()?,
                _ => None,
            };
            let time = time.ok_or_else(|| fail("strftime/1 requires parsed datetime inputs"))?;
            let Val::Str(format) = with else {
                return Err(fail("strftime/1 requires a string format"));
            };
            written(meter, &time, format).map(Val::from)
        }
        _ => {
            let (Val::Str(text), Val::Str(format)) = (value, with) else {
                return Err(fail("strptime/1 requires string inputs and arguments"));
            };
            let time = Reader { rest: text, time: Time { year: 1900, ..Time::default() }, has_date: false }
                .read(format);
            let time = time.ok_or_else(|| {
                quoting(
                    format!("date \"{}\" does not match format \"{}\"", &**text, &**format),
                    "the date does not match its format",
                )
            })?;
            Ok(time.to_val())
        }
    }
}

/// Days since 1970 of a date, the month from 1.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of so many days since 1970.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

fn from_seconds(seconds: f64) -> Result<Time, Thrown> {
    if seconds.is_nan() || seconds.abs() >= SECONDS_MAX {
        return Err(fail("error converting number of seconds since epoch to datetime"));
    }
    // As C does it: to the second nearer to 1970, and the part counted up from below.
    let whole = seconds.trunc();
    let (day, of_day) = ((whole as i64).div_euclid(86_400), (whole as i64).rem_euclid(86_400));
    let (year, month, day_of_month) = date(day);
    Ok(Time {
        year,
        month: month - 1,
        day: day_of_month,
        hour: of_day / 3600,
        minute: of_day / 60 % 60,
        second: (of_day % 60) as f64 + (seconds - seconds.floor()),
        weekday: (day + 4).rem_euclid(7),
        yearday: day - days(year, 1, 1),
    })
}

/// Broken down time from an array; what is missing is 0.
fn time_of(value: &Val) -> Option<Time> {
    let Val::Arr(list) = value else { return None };
    // As in C, years count from 1900 where none is given.
    let mut parts = [1900.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    for (part, item) in parts.iter_mut().zip(&list.items) {
        let Val::Num(number) = item else { return None };
        *part = number.float();
        if part.is_nan() || part.abs() >= 1e9 {
            return None;
        }
    }
    let whole = |at: usize| parts[at].trunc() as i64;
    Some(Time {
        year: whole(0),
        month: whole(1),
        day: whole(2),
        hour: whole(3),
        minute: whole(4),
        second: parts[5],
        weekday: whole(6),
        yearday: whole(7),
    })
}

impl Time {
    fn seconds(&self) -> i64 {
        let month = self.month.rem_euclid(12);
        let year = self.year + self.month.div_euclid(12);
        let day = days(year, month + 1, 1) + self.day - 1;
        day * 86_400 + self.hour * 3600 + self.minute * 60 + self.second.floor() as i64
    }

    fn to_val(self) -> Val {
        let whole = |n: i64| Val::Num(Num::Int(n));
        let parts = [
            whole(self.year),
            whole(self.month),
            whole(self.day),
            whole(self.hour),
            whole(self.minute),
            Val::from(self.second),
            whole(self.weekday),
            whole(self.yearday),
        ];
        parts.into_iter().collect()
    }
}

fn written(meter: &Meter, time: &Time, format: &str) -> Result<String, Thrown> {
    let mut out = String::new();
    let mut letters = format.chars();
    let name = |names: &[&'static str], at: i64| names.get(at as usize).copied().unwrap_or("?");
    let hour12 = match time.hour % 12 {
        0 => 12,
        hour => hour,
    };
    let half = if time.hour < 12 { "AM" } else { "PM" };
    while let Some(c) = letters.next() {
        meter.pay(1)?;
        if c != '%' {
            out.push(c);
            continue;
        }
        let second = time.second.floor() as i64;
        let again = |format: &str| written(meter, time, format);
        let piece = match letters.next() {
            Some('Y') => time.year.to_string(),
            Some('C') => format!("{:02}", time.year.div_euclid(100)),
            Some('y') => format!("{:02}", time.year.rem_euclid(100)),
            Some('m') => format!("{:02}", time.month + 1),
            Some('d') => format!("{:02}", time.day),
            Some('e') => format!("{:2}", time.day),
            Some('H') => format!("{:02}", time.hour),
            Some('k') => format!("{:2}", time.hour),
            Some('I') => format!("{hour12:02}"),
            Some('l') => format!("{hour12:2}"),
            Some('M') => format!("{:02}", time.minute),
            Some('S') => format!("{second:02}"),
            Some('j') => format!("{:03}", time.yearday + 1),
            Some('a') => name(&DAYS, time.weekday).chars().take(3).collect(),
            Some('A') => name(&DAYS, time.weekday).to_owned(),
            Some('b' | 'h') => name(&MONTHS, time.month).chars().take(3).collect(),
            Some('B') => name(&MONTHS, time.month).to_owned(),
            Some('p') => half.to_owned(),
            Some('P') => half.to_lowercase(),
            Some('u') => (if time.weekday == 0 { 7 } else { time.weekday }).to_string(),
            Some('w') => time.weekday.to_string(),
            Some('U') => format!("{:02}", (time.yearday + 7 - time.weekday) / 7),
            Some('W') => format!("{:02}", (time.yearday + 7 - (time.weekday + 6) % 7) / 7),
            Some('V') => format!("{:02}", iso_week(time).1),
            Some('G') => iso_week(time).0.to_string(),
            Some('g') => format!("{:02}", iso_week(time).0.rem_euclid(100)),
            Some('s') => time.seconds().to_string(),
            Some('Z') => "GMT".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('D' | 'x') => again("%m/%d/%y")?,
            Some('F') => again("%Y-%m-%d")?,
            Some('T' | 'X') => again("%H:%M:%S")?,
            Some('R') => again("%H:%M")?,
            Some('r') => again("%I:%M:%S %p")?,
            Some('c') => again("%a %b %e %H:%M:%S %Y")?,
            Some('n') => "\n".to_owned(),
            Some('t') => "\t".to_owned(),
            Some('%') => "%".to_owned(),
            Some(c) => return Err(fail(format!("strftime/1: unknown conversion `%{c}`"))),
            None => return Err(fail("strftime/1: the format ends with `%`")),
        };
        out.push_str(&piece);
    }
    Ok(out)
}

/// Year and week by ISO 8601.
fn iso_week(time: &Time) -> (i64, i64) {
    let weekday = (time.weekday + 6) % 7;
    let week = (time.yearday - weekday + 10) / 7;
    let weeks_of = |year: i64| {
        let first = (days(year, 1, 1) + 3).rem_euclid(7);
        let is_leap = days(year + 1, 1, 1) - days(year, 1, 1) == 366;
        if first == 3 || (first == 2 && is_leap) { 53 } else { 52 }
    };
    match week {
        0 => (time.year - 1, weeks_of(time.year - 1)),
        53 if weeks_of(time.year) < 53 => (time.year + 1, 1),
        week => (time.year, week),
    }
}

/// Reads a date by its format.
struct Reader<'t> {
    rest: &'t str,
    time: Time,
    has_date: bool,
}

impl Reader<'_> {
    fn read(mut self, format: &str) -> Option<Time> {
        self.follow(format)?;
        if !self.rest.is_empty() {
            return None;
        }
        let mut time = self.time;
        // C gives the day of the week and of the year by the date, even where there is none.
        let day =
            days(time.year + time.month.div_euclid(12), time.month.rem_euclid(12) + 1, 1) + time.day - 1;
        match self.has_date || time.day > 0 {
            true => {
                time.weekday = (day + 4).rem_euclid(7);
                time.yearday = day - days(time.year, 1, 1);
            }
            // A time without a date has no day at all.
            false => return None,
        }
        Some(time)
    }

    fn number(&mut self, most: usize) -> Option<i64> {
        self.rest = self.rest.trim_start();
        let sign = usize::from(self.rest.starts_with(['+', '-']));
        let digits = self.rest[sign..].bytes().take(most).take_while(u8::is_ascii_digit).count();
        let number = self.rest.get(..sign + digits)?.parse().ok()?;
        self.rest = &self.rest[sign + digits..];
        Some(number)
    }

    fn within(&mut self, most: usize, from: i64, to: i64) -> Option<i64> {
        self.number(most).filter(|n| (from..=to).contains(n))
    }

    fn name(&mut self, names: &[&str]) -> Option<i64> {
        for (at, name) in names.iter().enumerate() {
            for length in [name.len(), 3] {
                if let Some(found) = self.rest.get(..length)
                    && found.eq_ignore_ascii_case(&name[..length])
                {
                    self.rest = &self.rest[length..];
                    return Some(at as i64);
                }
            }
        }
        None
    }

    fn follow(&mut self, format: &str) -> Option<()> {
        let mut letters = format.chars();
        while let Some(c) = letters.next() {
            if c.is_whitespace() {
                self.rest = self.rest.trim_start();
                continue;
            }
            if c != '%' {
                self.rest = self.rest.strip_prefix(c)?;
                continue;
            }
            match letters.next()? {
                'Y' => {
                    self.time.year = self.within(4, 0, 9999)?;
                }
                'm' => {
                    self.time.month = self.within(2, 1, 12)? - 1;
                }
                'd' | 'e' => {
                    self.time.day = self.within(2, 1, 31)?;
                    self.has_date = true;
                }
                'j' => {
                    let of_year = self.within(3, 1, 366)?;
                    let (_, month, day) = date(days(self.time.year, 1, 1) + of_year - 1);
                    (self.time.month, self.time.day, self.has_date) = (month - 1, day, true);
                }
                'y' => {
                    let year = self.within(2, 0, 99)?;
                    self.time.year = if year < 69 { 2000 + year } else { 1900 + year };
                }
                'H' | 'k' => self.time.hour = self.within(2, 0, 23)?,
                'I' | 'l' => self.time.hour = self.within(2, 1, 12)? % 12,
                'p' => {
                    let half = self.rest.get(..2)?.to_ascii_uppercase();
                    self.rest = &self.rest[2..];
                    self.time.hour = match half.as_str() {
                        "AM" => self.time.hour % 12,
                        "PM" => self.time.hour % 12 + 12,
                        _ => return None,
                    };
                }
                'M' => self.time.minute = self.within(2, 0, 59)?,
                'S' => self.time.second = self.within(2, 0, 61)? as f64,
                'a' | 'A' => {
                    self.name(&DAYS)?;
                }
                'b' | 'B' | 'h' => self.time.month = self.name(&MONTHS)?,
                'Z' => self.rest = self.rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
                'z' => {
                    // Read and not counted, as in jq.
                    if let Some(rest) = self.rest.strip_prefix('Z') {
                        self.rest = rest;
                    } else {
                        self.rest = self.rest.strip_prefix(['+', '-'])?;
                        self.within(2, 0, 23)?;
                        self.rest = self.rest.strip_prefix(':').unwrap_or(self.rest);
                        self.within(2, 0, 59)?;
                    }
                }
                's' => self.time = from_seconds(self.number(15)? as f64).ok()?,
                'D' => self.follow("%m/%d/%y")?,
                'F' => self.follow("%Y-%m-%d")?,
                'T' => self.follow("%H:%M:%S")?,
                'R' => self.follow("%H:%M")?,
                'r' => self.follow("%I:%M:%S %p")?,
                'c' => self.follow("%a %b %e %H:%M:%S %Y")?,
                'n' | 't' => self.rest = self.rest.trim_start(),
                '%' => self.rest = self.rest.strip_prefix('%')?,
                _ => return None,
            }
        }
        Some(())
    }
}
