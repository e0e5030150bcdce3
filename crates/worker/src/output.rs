//! What the commands print to standard output.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::process::exit;

/// Prints a line. Whoever reads it may have had enough, as `head` has: then the command ends without a word.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::line(format_args!($($text)*)) };
}

pub(crate) use say;

pub fn line(text: Arguments<'_>) {
    let Err(error) = writeln!(std::io::stdout().lock(), "{text}") else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        exit(0);
    }
    eprintln!("error: standard output can't be written: {error}");
    exit(1);
}
