//! The text format of COPY: columns between tabs, `\N` for NULL, control characters behind backslashes.

#[derive(Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Null,
    /// The value as it is.
    Plain(&'a [u8]),
    Escaped(&'a [u8]),
}

/// The columns of a line without its end.
pub fn fields(line: &[u8]) -> impl Iterator<Item = Field<'_>> {
    // Most lines hold no escape at all, and then no column has to be looked through a second time.
    let escapes = memchr::memchr(b'\\', line).is_some();
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let field = match memchr::memchr(b'\t', line) {
            Some(tab) => {
                rest = Some(&line[tab + 1..]);
                &line[..tab]
            }
            None => {
                rest = None;
                line
            }
        };
        Some(match field {
            b"\\N" => Field::Null,
            field if escapes && memchr::memchr(b'\\', field).is_some() => Field::Escaped(field),
            field => Field::Plain(field),
        })
    })
}

/// Writes a column's text without its escapes over what `out` held.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let Some(&escaped) = rest.get(at + 1) else {
            rest = &rest[at..];
            break;
        };
        out.push(match escaped {
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0B,
            other => other,
        });
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_told_apart() {
        let line = b"1\t\\N\t\ta\\tb\t\\\\N\t\\\\x00";
        let fields: Vec<_> = fields(line).collect();
        let expected = [
            Field::Plain(b"1"),
            Field::Null,
            Field::Plain(b""),
            Field::Escaped(b"a\\tb"),
            Field::Escaped(b"\\\\N"),
            Field::Escaped(b"\\\\x00"),
        ];
        assert_eq!(fields, expected);
        let mut out = Vec::new();
        for (text, plain) in
            [(&b"a\\tb"[..], &b"a\tb"[..]), (b"\\\\N", b"\\N"), (b"\\b\\f\\n\\r\\v\\\\", b"\x08\x0c\n\r\x0b\\")]
        {
            unescape(text, &mut out);
            assert_eq!(out, plain);
        }
    }
}
