//! Regular expressions as jq writes them (Oniguruma, in the way of Perl), said in the syntax of the crate that
//! matches them. What both read in the same way passes as it is.
//!
//! Never: a pattern that matches something else than in jq. What the crate cannot do is an error, either
//! here or where the crate reads it.

use std::iter::Peekable;
use std::str::Chars;

/// The pattern for the crate; the error says what cannot be used.
pub(super) fn translated(pattern: &str, ignores_space: bool) -> Result<String, String> {
    let out = String::with_capacity(pattern.len() + 8);
    let mut reader = Reader { rest: pattern.chars().peekable(), out, ignores_space };
    reader.all()?;
    Ok(reader.out)
}

struct Reader<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
    /// Whether white space and comments are left out of the pattern.
    ignores_space: bool,
}

impl Reader<'_> {
    fn all(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape(false),
                '[' => self.class()?,
                '(' => self.group()?,
                '*' | '+' | '?' => self.repeated(&c.to_string())?,
                '{' => match counted(self.rest.clone()) {
                    Some(bounds) => {
                        self.rest.by_ref().take(bounds.len() + 1).for_each(drop);
                        self.repeated(&format!("{{{bounds}}}"))?;
                    }
                    None => self.out.push_str("\\{"),
                },
                '#' if self.ignores_space => {
                    self.out.push('#');
                    let comment = std::iter::from_fn(|| self.rest.next_if(|c| *c != '\n'));
                    self.out.extend(comment);
                }
                c => self.out.push(c),
            }
        }
        Ok(())
    }

    /// What repeats, and how: as little as possible where a `?` follows. A `+` would keep what was matched.
    fn repeated(&mut self, how: &str) -> Result<(), String> {
        self.out.push_str(how);
        if self.rest.peek() == Some(&'+') {
            return Err(format!("a possessive repetition (`{how}+`) cannot be used"));
        }
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        Ok(())
    }

    /// What follows a backslash. Letters that only the crate knows stand for themselves.
    fn escape(&mut self, is_in_class: bool) {
        let Some(c) = self.rest.next() else { return self.out.push('\\') };
        let has_name = self.rest.peek() == Some(&'{');
        match c {
            '<' | '>' | 'u' | 'U' | 'v' => self.out.push(c),
            'p' | 'P' if !has_name => self.out.push(c),
            'p' | 'P' => {
                // The name and its braces belong to it.
                self.out.extend(['\\', c]);
                while let Some(c) = self.rest.next_if(|c| *c != '}') {
                    self.out.push(c);
                }
            }
            'x' if has_name => self.out.extend(['\\', 'x', self.rest.next().unwrap_or('{')]),
            'e' => self.out.push_str("\\x1b"),
            'b' if is_in_class => self.out.push_str("\\x08"),
            c => self.out.extend(['\\', c]),
        }
    }

    /// `(`, with what it says of its group.
    fn group(&mut self) -> Result<(), String> {
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        self.out.push('?');
        let flags: String = self.rest.clone().take_while(|c| c.is_ascii_alphabetic() || *c == '-').collect();
        let end = self.rest.clone().nth(flags.len());
        if matches!(end, Some(')' | ':')) {
            if let Some(unknown) = flags.chars().find(|c| !"imsx-".contains(*c)) {
                return Err(format!("undefined group option `{unknown}`"));
            }
            self.ignores_space |= flags.split('-').next().unwrap_or("").contains('x');
        }
        Ok(())
    }

    /// A class, behind its `[`. In jq no class stands in another one, and nothing is subtracted or intersected.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut is_first = true;
        while let Some(c) = self.rest.next() {
            match c {
                ']' if !is_first => {
                    self.out.push(']');
                    return Ok(());
                }
                ']' => self.out.push_str("\\]"),
                '\\' => self.escape(true),
                '[' if self.rest.peek() == Some(&':') => self.named()?,
                '[' => self.out.push_str("\\["),
                '&' if self.rest.peek() == Some(&'&') => {
                    return Err("an intersection (`&&`) cannot be used".to_owned());
                }
                '-' if self.rest.peek() == Some(&'-') => {
                    return Err("`--` in a class cannot be used: write `\\-`".to_owned());
                }
                '~' => self.out.push_str("\\~"),
                // White space and `#` stand for themselves, also where they are left out elsewhere.
                c if c.is_whitespace() || c == '#' => {
                    self.out.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
                }
                c => self.out.push(c),
            }
            is_first = false;
        }
        Ok(())
    }

    /// `[:NAME:]`, behind its first letter: of all letters, not only of ASCII.
    fn named(&mut self) -> Result<(), String> {
        let inner: String = self.rest.clone().skip(1).take_while(|c| *c != ':' && *c != ']').collect();
        let is_named = self.rest.clone().skip(1 + inner.chars().count()).take(2).eq([':', ']']);
        if !is_named {
            self.out.push_str("\\[");
            return Ok(());
        }
        self.rest.by_ref().take(inner.chars().count() + 3).for_each(drop);
        let (is_not, name) = match inner.strip_prefix('^') {
            Some(name) => ("^", name),
            None => ("", inner.as_str()),
        };
        let members = match name {
            "alpha" => r"\p{Alphabetic}",
            "digit" => r"\p{Nd}",
            "alnum" => r"\p{Alphabetic}\p{Nd}",
            "upper" => r"\p{Uppercase}",
            "lower" => r"\p{Lowercase}",
            "space" => r"\s",
            "blank" => r"\p{Zs}\t",
            "cntrl" => r"\p{Cc}",
            "punct" => r"\p{P}\p{S}",
            "graph" => r"[^\s\p{Cc}\p{Cn}]",
            "print" => r"[^\s\p{Cc}\p{Cn}]\p{Zs}",
            "word" => r"\w",
            "xdigit" => "0-9A-Fa-f",
            "ascii" => r"\x00-\x7f",
            _ => return Err(format!("the class `[:{inner}:]` cannot be used")),
        };
        self.out.extend(["[", is_not, members, "]"]);
        Ok(())
    }
}

/// The bounds of a counted repetition, behind its `{`; `None` where that is a letter like any other.
fn counted(rest: Peekable<Chars<'_>>) -> Option<String> {
    let mut is_closed = false;
    let bounds: String = rest
        .take_while(|c| {
            is_closed = *c == '}';
            c.is_ascii_digit() || *c == ','
        })
        .collect();
    let (least, most) = bounds.split_once(',').unwrap_or((&bounds, ""));
    let is_counted = is_closed && !least.is_empty() && !most.contains(',');
    is_counted.then_some(bounds)
}
