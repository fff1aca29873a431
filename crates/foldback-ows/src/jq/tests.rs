//! Expressions as a table: what they give, and that no expression hangs, overflows or explodes.

use super::*;
use serde_json::json;

fn eval(text: &str, input: Value) -> Result<Value, String> {
    let filter =
        Filter::new(text, &["$context", "$item"]).map_err(|fault| format!("load: {}", fault.message))?;
    let variables = |name: &str| Arc::new(json!({"name": name, "n": 2, "xs": [1, 2]}));
    filter.eval(&input, &variables).map_err(|wrong| wrong.message)
}

#[test]
fn expressions_give_what_jq_gives() {
    let input = || json!({"a": {"b": [1, 2, 3]}, "s": "x,y", "t": "Hello", "n": 7, "f": 0.5, "z": null});
    for (text, wanted) in [
        (".", input()),
        (".a.b", json!([1, 2, 3])),
        (".a.b[-1]", json!(3)),
        (".z.y.x", json!(null)),
        (".a.b | map(. + 1)", json!([2, 3, 4])),
        (".a.b | add", json!(6)),
        ("[.a.b[] | select(. > 1)]", json!([2, 3])),
        (".n / 7", json!(1)),
        (".n + .f", json!(7.5)),
        ("\"\\(.t), \\(.n)!\"", json!("Hello, 7!")),
        (".s | split(\",\")", json!(["x", "y"])),
        (".s | test(\"^x\")", json!(true)),
        (".s | gsub(\",\"; \";\")", json!("x;y")),
        ("$context.n + ($item.xs | length)", json!(4)),
        (". as {$n} | $n", json!(7)),
        ("reduce .a.b[] as $x (0; . + $x)", json!(6)),
        ("{n, m: .f} | to_entries | map(.key)", json!(["n", "m"])),
        (".a.b |= map(. * 2) | .a", json!({"b": [2, 4, 6]})),
        (".n += 1 | .n", json!(8)),
        (".missing // \"none\"", json!("none")),
        ("try error(\"x\") catch .", json!("x")),
        ("[limit(3; repeat(1))]", json!([1, 1, 1])),
        ("[.[]?] | length", json!(6)),
        ("def f(x): x * 2; f(.n)", json!(14)),
        ("def fac: if . < 2 then 1 else . * (. - 1 | fac) end; 10 | fac", json!(3628800)),
        ("[range(0; 10; 3)]", json!([0, 3, 6, 9])),
        ("last(range(100000))", json!(99999)),
        ("0 | until(. > 50000; . + 1)", json!(50001)),
        ("[.a | .. | numbers]", json!([1, 2, 3])),
        (".a.b | contains([2])", json!(true)),
        (".a.b | index(2)", json!(1)),
        ("[.a.b[] as $x | .n + $x] | sort_by(-.)", json!([10, 9, 8])),
        ("\"[1,{\\\"x\\\":2}]\" | fromjson", json!([1, {"x": 2}])),
        (".a | tojson", json!("{\"b\":[1,2,3]}")),
        ("if .n > 5 then \"big\" elif .n > 3 then \"mid\" else \"small\" end", json!("big")),
        ("[paths] | length", json!(10)),
        ("getpath([\"a\", \"b\", 0])", json!(1)),
        ("del(.a, .s, .t, .f, .z)", json!({"n": 7})),
        ("@base64 \"\\(.t)\"", json!("SGVsbG8=")),
        ("[foreach .a.b[] as $x (0; . + $x)]", json!([1, 3, 6])),
        ("label $out | .a.b[] | if . > 1 then ., break $out else empty end", json!(2)),
        ("empty", json!(null)),
        ("[.a.b[:2][]]", json!([1, 2])),
        ("[[1,[2]],3] | flatten(1)", json!([1, [2], 3])),
        ("[splits(\"a\")?]", json!([])),
        ("now?", json!("load: there is no filter `now/0`")),
    ] {
        let got = eval(text, input()).unwrap_or_else(Value::String);
        assert_eq!(got, wanted, "{text}");
    }
}

#[test]
fn an_expression_that_cannot_be_read_says_where() {
    for (text, offset, message) in [
        (".a ||", 4, "found"),
        (".a | foo(1)", 5, "no filter `foo/1`"),
        ("$contxt.a", 0, "$contxt"),
        ("{a: 1", 0, "expected"),
        ("\"abc", 0, "expected"),
        ("$ENV.HOME", 0, "$ENV"),
        ("include \"x\"; .", 0, ""),
        ("input", 0, "no filter"),
        ("halt", 0, "no filter"),
        ("env", 0, "no filter"),
        ("debug", 0, "no filter"),
        ("input_filename", 0, "no filter"),
        ("localtime", 0, "no filter"),
        ("", 0, "expected"),
    ] {
        let fault = Filter::new(text, &["$context"]).err().unwrap_or_else(|| panic!("{text} was read"));
        assert!(fault.message.contains(message), "{text}: {}", fault.message);
        if offset > 0 {
            assert_eq!(fault.offset, offset, "{text}: {}", fault.message);
        }
    }
}

#[test]
fn no_expression_hangs_or_overflows() {
    let many = (0..60).map(|i| format!("(1,2) as $x{i} | ")).collect::<String>() + "empty";
    let sum = vec!["(1,2)"; 90].join("+");
    let both = vec!["(true,false)"; 90].join(" and ");
    let minus = "-".repeat(50_000) + "1";
    let brackets = "[".repeat(50_000);
    let tries = "try ".repeat(50_000) + "1";
    let object = format!("{{{}}}", (0..60).map(|i| format!("a{i}: (1,2)")).collect::<Vec<_>>().join(","));
    for text in [
        "[range(1e12)]",
        "range(1e12) | empty",
        "[repeat(1)]",
        "repeat(1) | empty",
        "def f: f; f",
        "def f: f + 1; f",
        "def f: [f]; f",
        "def f: 1 + (def g: f; g); f",
        "def f: def g: f; g + 1; f",
        "def f: def not: f; not + 1; f",
        "def f(x): f(x | x); f(.)",
        "def f: map(f); [[1]] | [f] | f",
        "def f: try f catch f; f",
        "def f: f?, f?; f | empty",
        "def f: (f | f); f",
        "def f: first(f); f",
        "[recurse(. + 1)]",
        "0 | until(false; . + 1)",
        "\"x\" * 1e9",
        "\"x\" * 100000 * 100000",
        "reduce range(100) as $i (\"x\"; . + .)",
        "reduce range(100) as $i ([1]; . + .)",
        "reduce range(100) as $i (1; [., .]) | tojson",
        "reduce range(100) as $i (1; {a: ., b: .}) | tojson",
        "reduce range(100) as $i ({}; .[\"k\\($i)\"] = .) | tojson",
        "reduce range(100) as $i (\"x\"; \"\\(.)\\(.)\")",
        "reduce range(100000) as $i (10; . * .)",
        "reduce range(1000000) as $i (null; [.])",
        "reduce range(1000000) as $i (null; {a: .})",
        "reduce range(1000000) as $i ({}; .a = .)",
        "reduce range(1000000) as $i ({}; {a: 1, b: .} | .a = .b)",
        "[[]] | getpath([range(100000) | 0]) |= 1",
        "(reduce range(10000000) as $i (.; .)) |= 1",
        "def f: .a | f; f |= 1",
        "repeat(.) |= 1",
        "recurse(.) |= 1",
        "[limit(1000000000; repeat(1))]",
        "(\"[\" * 100000) | fromjson",
        "[range(200000)] | . as $a | [$a[] | select($a | contains([.]))]",
        "([range(100000)] | tojson) as $s | [limit(1000000; repeat($s == ($s + \"\")))] | length",
        "([range(30000)] | tojson) as $s | [limit(1000000; repeat(try ($s | tonumber | .a) catch 1))] | length",
        "(\"a\" * 100000) | test(\"(a{1,1000}){1,1000}b\")",
        "[range(3000)] | combinations(5)",
        "[combinations(30)] | length",
        &many,
        &sum,
        &both,
        &minus,
        &brackets,
        &tries,
        &object,
    ] {
        let started = std::time::Instant::now();
        let result = eval(text, json!([1, 2, 3]));
        let name: String = text.chars().take(60).collect();
        assert!(
            result.is_err(),
            "{name} gave {:?}",
            result.map(|v| v.to_string().chars().take(60).collect::<String>())
        );
        assert!(started.elapsed().as_secs() < 20, "{name} took {:?}", started.elapsed());
    }
}

/// Expressions as deep as they may be: whatever they give, the stack holds.
#[test]
fn the_deepest_expressions_fit_the_stack() {
    let nest = |open: &str, inner: &str, close: &str, most: usize| {
        let texts = (1..=most).rev().map(|n| format!("{}{inner}{}", open.repeat(n), close.repeat(n)));
        // The deepest that is let in, with `f` bound for the texts that call it.
        let is_let_in = |text: &String| Filter::new(&format!("def f: .; {text}"), &[]).is_ok();
        texts.into_iter().find(is_let_in).unwrap_or_default()
    };
    let deep: Value = (0..120).fold(json!(1), |inner, _| json!([inner]));
    for text in [
        nest(". | ", ".", "", 98),
        nest("[", ".", "]", 98),
        nest("{a: ", ".", "}", 90),
        nest("(. + ", "1", ")", 48),
        nest("map(", ".", ")", 95),
        nest("walk(", ".", ")", 95),
        nest("[..] | map(", ".", ")", 3),
        nest("sort_by(", ".", ")", 95),
        nest("first(", ".", ")", 95),
        nest("with_entries(", ".", ")", 95),
        nest("any(", ".", ")", 95),
        nest("if . then ", "1", " else 2 end", 95),
        nest("try (", "error", ")", 48),
        nest("-(", "1", ")", 48),
        nest("reduce .[] as $x (", "0", "; .)", 48),
        nest(".[", "0", "]", 95),
        format!("def f: {}; f", nest("[", "f", "]", 90)),
        format!("def f: {}; f", nest("map(", "f", ")", 30)),
        format!("def f: {}; f |= 1", nest("first(", ". | f", ")", 30)),
        "[..] | length".to_owned(),
        "walk(.)".to_owned(),
        "[paths]|length".to_owned(),
        "flatten|length".to_owned(),
        "tojson|length".to_owned(),
        "[leaf_paths]".to_owned(),
        "del(..)".to_owned(),
        ".. |= .".to_owned(),
        "[recurse] | sort | unique | length".to_owned(),
        ". == [.]".to_owned(),
    ] {
        let _ = eval(&text, deep.clone());
    }
}

#[test]
fn an_expression_copies_only_what_it_looks_at() {
    let look = |text: &str| {
        Filter::new(text, &["$context"]).map(|f| (f.input, f.variables)).map_err(|f| f.message).unwrap()
    };
    assert_eq!(look("true and $context.a.b == 1").0, Wanted::Nothing);
    let (input, variables) = look(".critique.score >= 0.8 and (.items | length > 3)");
    assert!(variables.is_empty());
    let Wanted::Members(needs) = input else { panic!("{input:?}") };
    assert_eq!(needs.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["critique", "items"]);
    assert_eq!(look("length").0, Wanted::All);
    assert_eq!(look(".a | length").0, look(".a | keys").0);
    assert_eq!(look("[.[] | .a]").0, Wanted::All);
    assert_eq!(look("{a}").0, Wanted::All);
    assert_eq!(look(". as $x | $x.a").0, Wanted::All);
    assert_eq!(look("if .a then .b end").0, Wanted::All);
}

#[test]
fn a_condition_tells_its_reasons() {
    let filter = Filter::new(".critique.score >= $context.least and (.tries | length) < 3", &["$context"])
        .map_err(|f| f.message)
        .unwrap();
    let reasons = filter
        .reasons(&json!({"critique": {"score": 0.55}, "tries": [1]}), &|_| Arc::new(json!({"least": 0.8})));
    assert_eq!(
        reasons,
        [
            (".critique.score".to_owned(), json!(0.55)),
            (".tries".to_owned(), json!([1])),
            ("$context.least".to_owned(), json!(0.8))
        ]
    );
}

/// What is made of megabytes costs what it is made of, not its square.
#[test]
fn work_is_linear_in_what_is_looked_at() {
    let words: Vec<String> = (0..100_000).map(|i| format!("word {i} of many")).collect();
    let bytes: usize = words.iter().map(String::len).sum();
    let text = words[..20_000].join(", ");
    let nested: Vec<Value> = words.iter().map(|word| json!([[word]])).collect();
    for (program, input, wanted) in [
        ("join(\", \") | length", json!(words), json!(bytes + 2 * (words.len() - 1))),
        ("add | length", json!(words), json!(bytes)),
        ("map([.]) | add | length", json!(words), json!(words.len())),
        ("flatten | length", json!(nested), json!(words.len())),
        ("gsub(\"word\"; \"line\") | length", json!(text), json!(text.len())),
        ("gsub(\"(?<n>[0-9]+)\"; \"<\\(.n)>\") | length", json!(text), json!(text.len() + 2 * 20_000)),
        ("split(\", \") | length", json!(text), json!(20_000)),
        ("[splits(\", \")] | length", json!(text), json!(20_000)),
        ("reduce .[] as $word (\"\"; . + $word) | length", json!(words), json!(bytes)),
        ("reduce .[] as $word ([]; . + [$word]) | length", json!(words), json!(words.len())),
        ("map(select(length > 3)) | length", json!(words), json!(words.len())),
        (".[] |= length | add", json!(words), json!(bytes)),
        ("del(.[range(0; 50000)]) | length", json!(words), json!(words.len() - 50_000)),
        (". - . | length", json!(words), json!(0)),
        ("unique | length", json!(words), json!(words.len())),
    ] {
        let started = std::time::Instant::now();
        assert_eq!(eval(program, input), Ok(wanted), "{program}");
        assert!(started.elapsed().as_secs() < 2, "{program} took {:?}", started.elapsed());
    }
}

#[test]
fn numbers_are_kept_or_refused() {
    for (program, input, wanted) in [
        (".", json!(u64::MAX), Ok(json!(u64::MAX))),
        (". - 1", json!(u64::MAX), Ok(json!(u64::MAX - 1))),
        (". + 1", json!(i64::MAX), Ok(json!(9_223_372_036_854_775_808u64))),
        (". + 1", json!(u64::MAX), Err("leaves 64 bits")),
        (". * .", json!(i64::MAX), Err("leaves 64 bits")),
        ("-.", json!(u64::MAX), Err("leaves 64 bits")),
        ("10 / 2 | \"/page/\\(.)\"", json!(null), Ok(json!("/page/5"))),
        ("1e3 | tostring", json!(null), Ok(json!("1000"))),
        ("1 / 0", json!(null), Err("cannot be divided because the divisor is zero")),
        ("nan", json!(null), Err("the result is not a number")),
        ("{a: [1, infinite]}", json!(null), Err("the result at `/a/1` is infinite")),
        ("[nan] | tojson", json!(null), Err("has no word in JSON")),
        ("[nan, 1] | min | isnan", json!(null), Ok(json!(true))),
        (
            "99999999999999999999",
            json!(null),
            Err("load: the number 99999999999999999999 is outside 64 bits"),
        ),
        ("1e400", json!(null), Err("load: the number 1e400 is outside 64 bits")),
        ("fromjson", json!("18446744073709551616"), Err("outside 64 bits")),
        ("fromjson", json!("{\"a\":1,\"a\":2}"), Err("stands twice")),
        ("tonumber", json!("18446744073709551616"), Err("cannot be parsed as a number")),
    ] {
        match (eval(program, input), wanted) {
            (Ok(value), Ok(wanted)) => assert_eq!(value, wanted, "{program}"),
            (Err(error), Err(wanted)) => assert!(error.contains(wanted), "{program}: {error}"),
            (found, wanted) => panic!("{program}: {found:?}, not {wanted:?}"),
        }
    }
}

#[test]
fn a_single_quote_is_hinted_at() {
    let fault = Filter::new(".a == 'x'", &[]).err().expect("it is refused");
    assert_eq!(fault.offset, 6);
    assert!(fault.hint.is_some_and(|hint| hint.contains("double quotes")));
}

/// What an error says without a word of the values it is about.
#[test]
fn an_error_can_be_told_without_its_values() {
    for text in [
        ". + 1",
        "tonumber",
        "error",
        "error(.)",
        ".a",
        ".[]",
        "fromjson",
        "@base64d",
        "strptime(\"%Y\")",
        "{(.): 1} | .[0]",
        "keys",
        "{} | .[[\"secret\"]]",
        "try error(.) catch error(.)",
        "path(explode)",
        "test(\"(secret\")",
        "implode",
    ] {
        let filter = Filter::new(text, &[]).map_err(|fault| fault.message).expect(text);
        let wrong = filter.eval(&json!("secret"), &|_| Arc::new(Value::Null)).expect_err(text);
        assert!(!wrong.plain.contains("secret"), "{text}: {}", wrong.plain);
    }
}
