//! JSON as text: whether two texts mean the same, and whether a target would keep what one says.
//!
//! Numbers are never read into floats to be compared: `1e400` and integers of twenty digits keep their value. Nesting
//! is bounded by memory alone.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What a target that normalizes JSON would change or refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// An object has a member twice; a normalizing target keeps the last.
    pub duplicate_members: bool,
    /// A number that is neither a 64-bit integer nor exactly what a double prints: MySQL would change or refuse it.
    pub beyond_double: bool,
}

/// Reads a JSON text through once. None: it is not JSON.
pub fn survey(text: &str) -> Option<Survey> {
    let mut scanner = Scanner::new(text);
    let mut survey = Survey::default();
    // The members seen so far of the objects that are open, innermost last.
    let mut members: Vec<Cow<'_, str>> = Vec::new();
    let mut starts: Vec<usize> = Vec::new();
    while let Some(token) = scanner.next()? {
        match token {
            Token::ObjectStart => starts.push(members.len()),
            Token::ObjectEnd => {
                let start = starts.pop()?;
                let own = members.get_mut(start..)?;
                own.sort_unstable();
                survey.duplicate_members |= own.windows(2).any(|pair| pair[0] == pair[1]);
                members.truncate(start);
            }
            Token::Member(raw) => members.push(unescaped(raw)?),
            Token::Number(literal) => survey.beyond_double |= !is_double(literal),
            Token::ArrayStart | Token::ArrayEnd | Token::Literal(_) => {}
            Token::Text(raw) => {
                unescaped(raw)?;
            }
        }
    }
    Some(survey)
}

/// Whether both texts are JSON and mean the same: members in any order, the last of equal ones, numbers by value.
pub fn same(one: &str, other: &str) -> bool {
    match (canonical(one), canonical(other)) {
        (Some(one), Some(other)) => one == other,
        (None, _) | (_, None) => false,
    }
}

/// One text for all texts that mean the same. None: it is not JSON.
pub(crate) fn canonical(text: &str) -> Option<String> {
    enum Open {
        Array(String),
        Object { members: Vec<(String, String)>, name: Option<String> },
    }
    let mut scanner = Scanner::new(text);
    let mut stack: Vec<Open> = Vec::new();
    while let Some(token) = scanner.next()? {
        let value = match token {
            Token::ObjectStart => {
                stack.push(Open::Object { members: Vec::new(), name: None });
                continue;
            }
            Token::ArrayStart => {
                stack.push(Open::Array(String::from("[")));
                continue;
            }
            Token::Member(raw) => {
                if let Some(Open::Object { name, .. }) = stack.last_mut() {
                    *name = Some(unescaped(raw)?.into_owned());
                }
                continue;
            }
            Token::ArrayEnd | Token::ObjectEnd => match stack.pop()? {
                Open::Array(items) => items + "]",
                Open::Object { mut members, .. } => {
                    members.sort_by(|one, other| one.0.cmp(&other.0)); // stable: equal names keep their order
                    let mut out = String::from("{");
                    for (at, (name, value)) in members.iter().enumerate() {
                        if members.get(at + 1).is_none_or(|next| next.0 != *name) {
                            write!(out, "\"{name}\":{value},").ok()?;
                        }
                    }
                    out + "}"
                }
            },
            Token::Text(raw) => format!("\"{}\"", unescaped(raw)?),
            Token::Number(literal) => number(literal),
            Token::Literal(word) => word.to_owned(),
        };
        match stack.last_mut() {
            None => return scanner.next()?.is_none().then_some(value),
            Some(Open::Array(items)) => {
                items.push_str(&value);
                items.push(',');
            }
            Some(Open::Object { members, name }) => members.push((name.take()?, value)),
        }
    }
    None
}

/// Significant digits and the power of ten of the last of them; the literal itself where its exponent is beyond reason.
fn number(literal: &str) -> String {
    let Some((negative, digits, exponent)) = parts(literal) else { return literal.to_owned() };
    if digits.is_empty() {
        return String::from("0");
    }
    format!("{}{digits}e{exponent}", if negative { "-" } else { "" })
}

fn parts(literal: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let places = i64::try_from(fraction.len()).ok()?;
    let exponent = exponent.parse::<i64>().ok()?.checked_add(dropped)?.checked_sub(places)?;
    Some((negative, significant.trim_start_matches('0').to_owned(), exponent))
}

/// Whether MySQL prints this number back with the same value.
pub(crate) fn is_double(literal: &str) -> bool {
    let plain = !literal.contains(['.', 'e', 'E']);
    // Any number of up to 15 digits comes back from a double.
    if plain && literal.len() <= 15 {
        return true;
    }
    if plain && (literal.parse::<i64>().is_ok() || literal.parse::<u64>().is_ok()) {
        return true;
    }
    let Some(double) = literal.parse::<f64>().ok().filter(|double| double.is_finite()) else { return false };
    // The fewest digits that read back as this double, and of those the nearest: where two are equally near, MySQL takes
    // the even one as an exact format does, and the shortest format takes the larger.
    let shortest = format!("{double:e}");
    let places =
        shortest.split_once('e').map_or(0, |(mantissa, _)| mantissa.split_once('.').map_or(0, |(_, f)| f.len()));
    number(&format!("{double:.places$e}")) == number(literal)
}

/// The text between the quotes with escapes undone, except that `"`, `\` and control characters keep one and the same
/// escape, and half a surrogate pair keeps its own: so two texts are equal here exactly if they mean the same.
fn unescaped(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('\\') {
        return Some(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        let unit = match escape {
            b'"' | b'\\' | b'/' => u32::from(escape),
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            b'u' => {
                let (unit, tail) = hex(rest)?;
                rest = tail;
                match low_half(rest).filter(|_| (0xD800..0xDC00).contains(&unit)) {
                    None => unit,
                    Some((low, tail)) => {
                        rest = tail;
                        0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                }
            }
            _ => return None,
        };
        match char::from_u32(unit) {
            Some(character @ ('"' | '\\')) => {
                out.push('\\');
                out.push(character);
            }
            Some(character) if character >= ' ' => out.push(character),
            Some(_) | None => write!(out, "\\u{unit:04x}").ok()?,
        }
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

fn hex(text: &str) -> Option<(u32, &str)> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    Some((u32::from_str_radix(digits, 16).ok()?, &text[4..]))
}

fn low_half(text: &str) -> Option<(u32, &str)> {
    hex(text.strip_prefix("\\u")?).filter(|(unit, _)| (0xDC00..0xE000).contains(unit))
}

pub(crate) enum Token<'a> {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    /// A member's name, between its quotes.
    Member(&'a str),
    /// A string, between its quotes.
    Text(&'a str),
    Number(&'a str),
    /// `true`, `false` or `null`.
    Literal(&'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    ValueOrEnd,
    Member,
    MemberOrEnd,
    CommaOrEnd,
    Nothing,
}

/// Reads JSON token by token and checks its grammar (RFC 8259) on the way.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The open brackets; true for an object.
    open: Vec<bool>,
    expected: Expected,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, open: Vec::new(), expected: Expected::Value }
    }

    /// The next token, `Some(None)` at the end of a whole document, None where the text is not JSON.
    #[allow(clippy::option_option)]
    pub(crate) fn next(&mut self) -> Option<Option<Token<'a>>> {
        if self.expected == Expected::CommaOrEnd && self.peek() == Some(b',') {
            self.at += 1;
            self.expected = if *self.open.last()? { Expected::Member } else { Expected::Value };
        }
        let Some(byte) = self.peek() else { return (self.expected == Expected::Nothing).then_some(None) };
        let token = match (self.expected, byte) {
            (Expected::CommaOrEnd | Expected::MemberOrEnd, b'}') if *self.open.last()? => self.close(Token::ObjectEnd),
            (Expected::CommaOrEnd | Expected::ValueOrEnd, b']') if !*self.open.last()? => self.close(Token::ArrayEnd),
            (Expected::Member | Expected::MemberOrEnd, b'"') => {
                let name = self.string()?;
                (self.peek()? == b':').then_some(())?;
                self.at += 1;
                self.expected = Expected::Value;
                Token::Member(name)
            }
            (Expected::Value | Expected::ValueOrEnd, byte) => self.value(byte)?,
            _ => return None,
        };
        Some(Some(token))
    }

    fn value(&mut self, byte: u8) -> Option<Token<'a>> {
        let token = match byte {
            b'{' | b'[' => {
                self.at += 1;
                self.open.push(byte == b'{');
                let object = byte == b'{';
                self.expected = if object { Expected::MemberOrEnd } else { Expected::ValueOrEnd };
                return Some(if object { Token::ObjectStart } else { Token::ArrayStart });
            }
            b'"' => Token::Text(self.string()?),
            b'-' | b'0'..=b'9' => Token::Number(self.number()?),
            _ => {
                let rest = &self.text.as_bytes()[self.at..];
                let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word.as_bytes()))?;
                self.at += word.len();
                Token::Literal(word)
            }
        };
        self.ended();
        Some(token)
    }

    fn close(&mut self, token: Token<'a>) -> Token<'a> {
        self.at += 1;
        self.open.pop();
        self.ended();
        token
    }

    fn ended(&mut self) {
        self.expected = if self.open.is_empty() { Expected::Nothing } else { Expected::CommaOrEnd };
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).unwrap_or(rest.len());
        self.text.as_bytes().get(self.at).copied()
    }

    fn string(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut end = start;
        loop {
            match bytes.get(end)? {
                b'"' => break,
                b'\\' => end += 2,
                0..0x20 => return None,
                _ => end += 1,
            }
        }
        self.at = end + 1;
        self.text.get(start..end)
    }

    fn number(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = start + usize::from(bytes[start] == b'-');
        let whole = digits(end);
        if whole == 0 || (whole > 1 && bytes[end] == b'0') {
            return None;
        }
        end += whole;
        if bytes.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            if fraction == 0 {
                return None;
            }
            end += 1 + fraction;
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            end += 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end);
            if exponent == 0 {
                return None;
            }
            end += exponent;
        }
        self.at = end;
        Some(&self.text[start..end])
    }
}

#[cfg(test)]
mod tests;
