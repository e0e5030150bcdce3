//! Statements that stand in the log as text: the frame of transactions, and what changes tables without row events.

/// A table as a statement names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// None is the statement's default database.
    pub database: Option<String>,
    pub table: String,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Statement<'a> {
    Begin,
    Commit,
    Rollback,
    /// `SAVEPOINT` and `RELEASE SAVEPOINT`.
    Savepoint,
    RollbackTo,
    /// The transaction's name, as every XA statement about it spells it.
    XaStart(&'a str),
    XaEnd,
    XaCommit(&'a str),
    XaRollback(&'a str),
    Truncate(Name),
    /// Tables whose rows go, come or change names behind the back of row events.
    Moves {
        tables: Vec<Name>,
        what: &'static str,
    },
    DropDatabase(String),
    /// Definitions of tables that keep their rows.
    Alter(Name),
    /// Rows written in statement format: every name that the text may write to.
    Writes(Vec<String>),
    /// A `CREATE TABLE ... SELECT`, whose rows follow.
    CreateWithRows,
    Other,
}

impl<'a> Statement<'a> {
    pub fn parse(text: &'a [u8]) -> Self {
        // By far the most frequent ones, as the server itself spells them.
        match text {
            b"BEGIN" => return Statement::Begin,
            b"COMMIT" => return Statement::Commit,
            _ => {}
        }
        let Ok(text) = std::str::from_utf8(text) else { return Self::parse_tokens(&String::from_utf8_lossy(text)) };
        let upper = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let rest = |word: &str| text[word.len()..].trim();
        for (word, make) in [
            ("XA START ", Statement::XaStart as fn(&'a str) -> Self),
            ("XA COMMIT ", Statement::XaCommit),
            ("XA ROLLBACK ", Statement::XaRollback),
            ("XA END", |_| Statement::XaEnd),
            ("SAVEPOINT", |_| Statement::Savepoint),
            ("RELEASE", |_| Statement::Savepoint),
            ("ROLLBACK TO", |_| Statement::RollbackTo),
            ("ROLLBACK", |_| Statement::Rollback),
        ] {
            if upper(word) {
                return make(rest(word));
            }
        }
        Self::parse_tokens(text)
    }

    fn parse_tokens<'b>(text: &str) -> Statement<'b> {
        let tokens = tokens(text);
        let mut rest = Tokens(&tokens);
        if rest.word("TRUNCATE") {
            rest.word("TABLE");
            return rest.name().map_or(Statement::Other, Statement::Truncate);
        }
        if rest.word("DROP") {
            if rest.word("DATABASE") || rest.word("SCHEMA") {
                rest.if_exists();
                return rest.identifier().map_or(Statement::Other, Statement::DropDatabase);
            }
            return match rest.word("TABLE") {
                true => {
                    rest.if_exists();
                    Statement::Moves { tables: rest.names(), what: "dropped" }
                }
                false => Statement::Other,
            };
        }
        if rest.word("RENAME") {
            return match rest.word("TABLE") || rest.word("TABLES") {
                true => Statement::Moves { tables: rest.renames(), what: "renamed" },
                false => Statement::Other,
            };
        }
        if rest.word("ALTER") {
            return match rest.word("TABLE") {
                true => rest.alter(),
                false => Statement::Other,
            };
        }
        if rest.word("CREATE") {
            let with_rows = matches!(&tokens[..], [.., Token::Word(start), Token::Word(end)]
                if start.eq_ignore_ascii_case("START") && end.eq_ignore_ascii_case("TRANSACTION"));
            return if with_rows { Statement::CreateWithRows } else { Statement::Other };
        }
        // Behind these words, outside of parentheses, a statement only reads. A checksum tool, for one, writes what it reads into
        // a table of its own.
        let reads: Option<&[&str]> = match () {
            () if rest.word("INSERT") || rest.word("REPLACE") => {
                while ["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"].iter().any(|word| rest.word(word))
                {
                }
                // The table's name may be one of the words.
                rest.name();
                Some(&["SELECT", "VALUES", "VALUE", "SET", "TABLE", "WITH"])
            }
            () if rest.word("UPDATE") => Some(&["SET"]),
            () if rest.word("DELETE") => Some(&["WHERE"]),
            () if rest.word("LOAD") || rest.word("WITH") => Some(&[]),
            () => None,
        };
        let Some(reads) = reads else { return Statement::Other };
        let begun = tokens.len() - rest.0.len();
        let (mut depth, mut read) = (0, false);
        let is_name = |(at, token): (usize, Token)| {
            match &token {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth -= 1,
                Token::Word(word) => {
                    read |= at >= begun && depth == 0 && reads.iter().any(|one| word.eq_ignore_ascii_case(one));
                }
                Token::Quoted(_) | Token::Mark(_) => {}
            }
            match token {
                Token::Word(name) | Token::Quoted(name) if !read => Some(name),
                Token::Word(_) | Token::Quoted(_) | Token::Mark(_) => None,
            }
        };
        let names = tokens.into_iter().enumerate().filter_map(is_name);
        Statement::Writes(names.collect())
    }
}

#[derive(Debug)]
enum Token {
    Word(String),
    Quoted(String),
    Mark(char),
}

/// Words, quoted names and marks; comments and string literals are left out, the text of `/*! */` comments is kept.
fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip_to = |end: &str, from: usize| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
        let length = match first {
            '/' if rest.starts_with("/*!") => 3 + rest[3..].bytes().take_while(u8::is_ascii_digit).count(),
            '/' if rest.starts_with("/*") => skip_to("*/", 2),
            '*' if rest.starts_with("*/") => 2,
            '#' => skip_to("\n", 1),
            '-' if rest.starts_with("-- ") || rest.starts_with("--\n") => skip_to("\n", 2),
            '`' | '"' | '\'' => {
                let end = closing(rest, first);
                let inside = rest[1..end].strip_suffix(first).unwrap_or(&rest[1..end]);
                if first != '\'' {
                    let doubled: String = [first, first].iter().collect();
                    found.push(Token::Quoted(inside.replace(&doubled, &first.to_string())));
                }
                end
            }
            _ if first.is_alphanumeric() || first == '_' || first == '$' => {
                let end = rest.find(|one: char| !(one.is_alphanumeric() || one == '_' || one == '$'));
                let end = end.unwrap_or(rest.len());
                found.push(Token::Word(rest[..end].to_owned()));
                end
            }
            _ => {
                if !first.is_whitespace() {
                    found.push(Token::Mark(first));
                }
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    found
}

/// The length of a quoted piece with both its quotes; a doubled quote does not end it.
fn closing(text: &str, quote: char) -> usize {
    let mut bytes = text.bytes().enumerate().skip(1).peekable();
    while let Some((at, byte)) = bytes.next() {
        if byte == b'\\' && quote != '`' {
            bytes.next();
        } else if char::from(byte) == quote {
            match bytes.peek() {
                Some((_, next)) if char::from(*next) == quote => {
                    bytes.next();
                }
                _ => return at + 1,
            }
        }
    }
    text.len()
}

struct Tokens<'a>(&'a [Token]);

impl Tokens<'_> {
    fn word(&mut self, word: &str) -> bool {
        match self.0.split_first() {
            Some((Token::Word(found), rest)) if found.eq_ignore_ascii_case(word) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn mark(&mut self, mark: char) -> bool {
        match self.0.split_first() {
            Some((Token::Mark(found), rest)) if *found == mark => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn if_exists(&mut self) {
        let _present = self.word("IF") && self.word("EXISTS");
    }

    fn identifier(&mut self) -> Option<String> {
        match self.0.split_first() {
            Some((Token::Word(name) | Token::Quoted(name), rest)) => {
                self.0 = rest;
                Some(name.clone())
            }
            _ => None,
        }
    }

    fn name(&mut self) -> Option<Name> {
        let first = self.identifier()?;
        match self.mark('.') {
            true => Some(Name { database: Some(first), table: self.identifier()? }),
            false => Some(Name { database: None, table: first }),
        }
    }

    fn names(&mut self) -> Vec<Name> {
        let mut names = Vec::new();
        while let Some(name) = self.name() {
            names.push(name);
            if !self.mark(',') {
                break;
            }
        }
        names
    }

    fn renames(&mut self) -> Vec<Name> {
        let mut names = Vec::new();
        while let Some(name) = self.name() {
            names.push(name);
            if self.word("TO") {
                names.extend(self.name());
            }
            if !self.mark(',') {
                break;
            }
        }
        names
    }

    /// The table that takes a partition's rows and gives its own.
    fn exchanged(&mut self) -> Option<Name> {
        self.identifier()?;
        (self.word("WITH") && self.word("TABLE")).then(|| self.name()).flatten()
    }

    fn alter<'b>(&mut self) -> Statement<'b> {
        let Some(name) = self.name() else { return Statement::Other };
        let mut depth = 0;
        while let Some((first, rest)) = self.0.split_first() {
            self.0 = rest;
            match first {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth -= 1,
                Token::Word(word) if depth == 0 => {
                    let word = word.to_ascii_uppercase();
                    let partition = self.word("PARTITION");
                    let of_partition = partition && matches!(word.as_str(), "DROP" | "TRUNCATE" | "EXCHANGE");
                    let of_space =
                        (partition || self.word("TABLESPACE")) && matches!(word.as_str(), "IMPORT" | "DISCARD");
                    if of_partition || of_space {
                        let other = if word == "EXCHANGE" { self.exchanged() } else { None };
                        let tables = std::iter::once(name).chain(other).collect();
                        return Statement::Moves { tables, what: "altered in a way that moves rows" };
                    }
                    let of_part = |rest: &mut Self| ["COLUMN", "INDEX", "KEY"].iter().any(|part| rest.word(part));
                    if word == "RENAME" && !of_part(self) {
                        return Statement::Moves { tables: vec![name], what: "renamed" };
                    }
                }
                Token::Word(_) | Token::Quoted(_) | Token::Mark(_) => {}
            }
        }
        Statement::Alter(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        match text.split_once('.') {
            Some((database, table)) => Name { database: Some(database.into()), table: table.into() },
            None => Name { database: None, table: text.into() },
        }
    }

    #[test]
    fn statements_are_told_apart() {
        let moves = |tables: &[&str], what| Statement::Moves { tables: tables.iter().map(|t| name(t)).collect(), what };
        for (text, wanted) in [
            ("BEGIN", Statement::Begin),
            ("COMMIT", Statement::Commit),
            ("XA START X'61',X'',1", Statement::XaStart("X'61',X'',1")),
            ("XA COMMIT X'61',X'',1", Statement::XaCommit("X'61',X'',1")),
            ("xa rollback X'61',X'',1", Statement::XaRollback("X'61',X'',1")),
            ("ROLLBACK TO `a`", Statement::RollbackTo),
            ("TRUNCATE TABLE t", Statement::Truncate(name("t"))),
            ("/* hi */ truncate `d`.`t` -- bye", Statement::Truncate(name("d.t"))),
            ("DROP TABLE IF EXISTS `a`,`d`.`b` /* generated by server */", moves(&["a", "d.b"], "dropped")),
            (
                "TRUNCATE `a.b`.` ``c```",
                Statement::Truncate(Name { database: Some("a.b".into()), table: " `c`".into() }),
            ),
            ("DROP TEMPORARY TABLE t", Statement::Other),
            ("rename table a to b, c to d", moves(&["a", "b", "c", "d"], "renamed")),
            ("ALTER TABLE t ADD COLUMN drop_partition int", Statement::Alter(name("t"))),
            ("ALTER TABLE t RENAME COLUMN a TO b", Statement::Alter(name("t"))),
            ("ALTER TABLE t RENAME TO u", moves(&["t"], "renamed")),
            ("ALTER TABLE t DROP PARTITION p0", moves(&["t"], "altered in a way that moves rows")),
            (
                "ALTER TABLE t EXCHANGE PARTITION p0 WITH TABLE d.u WITHOUT VALIDATION",
                moves(&["t", "d.u"], "altered in a way that moves rows"),
            ),
            ("ALTER TABLE t DISCARD PARTITION p0 TABLESPACE", moves(&["t"], "altered in a way that moves rows")),
            ("ALTER TABLE t IMPORT TABLESPACE", moves(&["t"], "altered in a way that moves rows")),
            ("ALTER TABLE t ADD import INT, DROP discard", Statement::Alter(name("t"))),
            ("ALTER TABLE t COMMENT 'DROP PARTITION p0'", Statement::Alter(name("t"))),
            ("DROP DATABASE `x`", Statement::DropDatabase("x".into())),
            ("CREATE TABLE `t` (`a` int) START TRANSACTION", Statement::CreateWithRows),
            ("CREATE TABLE t (a int)", Statement::Other),
            ("FLUSH TABLES", Statement::Other),
        ] {
            assert_eq!(Statement::parse(text.as_bytes()), wanted, "{text}");
        }
        let Statement::Writes(names) = Statement::parse(b"UPDATE `t` SET a = 'x''y' WHERE b = 1") else { panic!() };
        assert!(names.iter().any(|name| name == "t") && !names.iter().any(|name| name == "x"));
        for (text, written, read) in [
            (
                "REPLACE INTO percona.checksums (db, crc) SELECT 'shop', CRC32(id) FROM shop.customer",
                "checksums",
                "customer",
            ),
            ("DELETE a FROM a JOIN b ON a.id = b.id WHERE a.id IN (SELECT id FROM c)", "b", "c"),
            ("UPDATE a JOIN b USING (id) SET a.n = (SELECT max(n) FROM c)", "b", "c"),
            (
                "DELETE o FROM (SELECT id FROM tmp WHERE bad) d JOIN orders o USING (id) WHERE o.n IN (SELECT n FROM c)",
                "orders",
                "c",
            ),
            ("INSERT IGNORE INTO shop.value VALUES (1)", "value", "1"),
        ] {
            let Statement::Writes(names) = Statement::parse(text.as_bytes()) else { panic!("{text}") };
            assert!(
                names.iter().any(|name| name == written) && !names.iter().any(|name| name == read),
                "{text}: {names:?}"
            );
        }
    }

    #[test]
    fn no_text_is_too_odd() {
        for text in ["", "'", "`", "/*", "/*!", "ALTER TABLE", "drop table", "TRUNCATE `", "\u{e9}\u{20ac}--", "\"\\"] {
            Statement::parse(text.as_bytes());
        }
    }
}
