//! The tokens of an expression, as jq 1.8 reads them.

use super::Fault;
use super::bounds::TOKENS_MAX;

/// A token and its place.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub tok: Tok,
    pub at: usize,
    pub end: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tok {
    /// A keyword, or the name of a filter.
    Word(String),
    /// `.name`
    Field(String),
    /// `$name`, with its `$`.
    Var(String),
    /// `@name`, with its `@`.
    Format(String),
    Num(String),
    Str(Vec<Chunk>),
    /// Brackets and operators.
    Sym(&'static str),
}

/// A piece of a text: letters, or the tokens of an interpolation.
#[derive(Clone, Debug)]
pub(crate) enum Chunk {
    Text(String),
    Code(Vec<Token>),
}

impl PartialEq for Chunk {
    fn eq(&self, _: &Chunk) -> bool {
        false
    }
}

/// Longest first: the first that fits is taken.
const SYMBOLS: [&str; 33] = [
    "//=", "|=", "+=", "-=", "*=", "/=", "%=", "==", "!=", "<=", ">=", "//", "..", "?", "|", ",", "=", "<",
    ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", "{", "}", ".", ":", ";",
];

/// All tokens of an expression.
pub(crate) fn lex(text: &str) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer { text, at: 0, count: 0 };
    let tokens = lexer.tokens(None)?;
    Ok(tokens)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    count: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn fault(&self, at: usize, message: impl Into<String>) -> Fault {
        Fault { offset: at, message: message.into(), hint: None }
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            // A comment ends with its line, unless the line ends with an odd number of backslashes.
            loop {
                let line = self.rest().split('\n').next().unwrap_or("").len();
                let slashes =
                    self.rest()[..line].trim_end_matches('\r').bytes().rev().take_while(|b| *b == b'\\');
                let goes_on = slashes.count() % 2 == 1;
                self.at = (self.at + line + 1).min(self.text.len());
                if !goes_on || self.at == self.text.len() {
                    break;
                }
            }
        }
    }

    /// Tokens up to the end, or up to the bracket that closes an interpolation.
    fn tokens(&mut self, open: Option<usize>) -> Result<Vec<Token>, Fault> {
        let mut tokens = Vec::new();
        let mut brackets = 0usize;
        loop {
            self.skip_space();
            let at = self.at;
            if at == self.text.len() {
                return match open {
                    None => Ok(tokens),
                    Some(open) => Err(self.fault(open, "expected closing parenthesis")),
                };
            }
            if open.is_some() && brackets == 0 && self.rest().starts_with(')') {
                self.at += 1;
                return Ok(tokens);
            }
            let tok = self.token()?;
            match tok {
                Tok::Sym("(" | "[" | "{") => brackets += 1,
                Tok::Sym(")" | "]" | "}") => brackets = brackets.saturating_sub(1),
                _ => {}
            }
            self.count += 1;
            if self.count > TOKENS_MAX {
                return Err(Fault {
                    hint: Some("split it over several `set` tasks".into()),
                    ..self.fault(0, format!("an expression has at most {TOKENS_MAX} tokens"))
                });
            }
            tokens.push(Token { tok, at, end: self.at });
        }
    }

    /// The length of the name that the text begins with.
    fn word(text: &str) -> usize {
        match text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            true => text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len()),
            false => 0,
        }
    }

    fn token(&mut self) -> Result<Tok, Fault> {
        let at = self.at;
        let rest: &'t str = &self.text[at..];
        let first = rest.chars().next().unwrap_or(' ');
        let word = Lexer::word(rest);
        if word > 0 {
            self.at += word;
            return Ok(Tok::Word(rest[..word].to_owned()));
        }
        let behind = Lexer::word(&rest[first.len_utf8()..]);
        match first {
            '.' if behind > 0 => {
                self.at += 1 + behind;
                return Ok(Tok::Field(rest[1..1 + behind].to_owned()));
            }
            // No token of jq's: the parser says where it stands.
            '$' | '@' if behind == 0 => {
                self.at += 1;
                return Ok(Tok::Sym(if first == '$' { "$" } else { "@" }));
            }
            '$' | '@' => {
                self.at += 1 + behind;
                let name = rest[..1 + behind].to_owned();
                return Ok(if first == '$' { Tok::Var(name) } else { Tok::Format(name) });
            }
            '"' => return self.string(),
            '\'' => {
                return Err(Fault {
                    hint: Some("write texts in double quotes: \"…\"; single quotes are not jq".into()),
                    ..self.fault(at, "a single quote is no part of an expression")
                });
            }
            _ => {}
        }
        let number = number_length(rest);
        if number > 0 {
            self.at += number;
            return Ok(Tok::Num(rest[..number].to_owned()));
        }
        match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => {
                self.at += symbol.len();
                Ok(Tok::Sym(symbol))
            }
            None => Err(self.fault(at, format!("expected token, found `{first}`"))),
        }
    }

    fn string(&mut self) -> Result<Tok, Fault> {
        let open = self.at;
        self.at += 1;
        let mut chunks = Vec::new();
        let mut text = String::new();
        loop {
            let at = self.at;
            let Some(c) = self.rest().chars().next() else {
                return Err(self.fault(open, "expected closing quote"));
            };
            self.at += c.len_utf8();
            match c {
                '"' => break,
                '\\' => {
                    let Some(escaped) = self.rest().chars().next() else {
                        return Err(self.fault(open, "expected closing quote"));
                    };
                    self.at += escaped.len_utf8();
                    match escaped {
                        '"' | '\\' | '/' => text.push(escaped),
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        'b' => text.push('\u{8}'),
                        'f' => text.push('\u{c}'),
                        'u' => text.push(self.unicode(at)?),
                        '(' => {
                            if !text.is_empty() {
                                chunks.push(Chunk::Text(std::mem::take(&mut text)));
                            }
                            chunks.push(Chunk::Code(self.tokens(Some(at))?));
                        }
                        _ => return Err(self.fault(at, "expected string escape sequence")),
                    }
                }
                c => text.push(c),
            }
        }
        if !text.is_empty() {
            chunks.push(Chunk::Text(text));
        }
        Ok(Tok::Str(chunks))
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let code = u32::from_str_radix(digits, 16).ok()?;
        self.at += 4;
        Some(code)
    }

    /// Behind `\u`: one code, or the two halves of one.
    fn unicode(&mut self, at: usize) -> Result<char, Fault> {
        let fault =
            Fault { offset: at, message: "expected 4-digit hexadecimal UTF-8 code point".into(), hint: None };
        let Some(high) = self.four_digits() else {
            return Err(fault);
        };
        if let Some(c) = char::from_u32(high) {
            return Ok(c);
        }
        if (0xd800..0xdc00).contains(&high) && self.rest().starts_with("\\u") {
            self.at += 2;
            if let Some(low) = self.four_digits().filter(|low| (0xdc00..0xe000).contains(low)) {
                return char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or(fault);
            }
        }
        Err(Fault { message: "half of a surrogate pair is no letter".into(), ..fault })
    }
}

/// The length of the number that the text begins with: `1`, `1.`, `.5`, `1e3`.
fn number_length(text: &str) -> usize {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut at = whole;
    if text[at..].starts_with('.') {
        let part = digits(at + 1);
        if whole == 0 && part == 0 {
            return 0;
        }
        at += 1 + part;
    }
    if at == 0 {
        return 0;
    }
    if text[at..].starts_with(['e', 'E']) {
        let sign = usize::from(text[at + 1..].starts_with(['+', '-']));
        let exponent = digits(at + 1 + sign);
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    at
}
