//! Base64 with padding, as extended JSON writes binaries.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub fn encode(bytes: &[u8], out: &mut String) {
    for chunk in bytes.chunks(3) {
        let part = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = part(0) << 16 | part(1) << 8 | part(2);
        for at in 0..4 {
            let sextet = bits >> (18 - 6 * at) & 0x3F;
            let shown = at <= chunk.len();
            out.push(if shown { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
}

pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for chunk in digits.chunks(4) {
        let mut bits = 0u32;
        for &digit in chunk {
            bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|one| *one == digit)?).ok()?;
        }
        bits <<= 6 * (4 - chunk.len());
        let count = chunk.len().checked_sub(1).filter(|count| *count > 0)?;
        bytes.extend_from_slice(bits.to_be_bytes().get(1..1 + count)?);
    }
    Some(bytes)
}
