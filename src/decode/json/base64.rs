//! Base64 in text (RFC 4648): the standard and the URL alphabet, with or without padding; no white space.

/// Appends what `text` encodes to `out`; false, with `out` as it was, when `text` is no base64.
pub(crate) fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let padding = text.iter().rev().take(2).take_while(|b| **b == b'=').count();
    let digits = &text[..text.len() - padding];
    let rest = digits.len() % 4;
    // Padding fills up to four digits, or is absent; one digit alone encodes nothing.
    let well_formed = rest != 1 && (padding == 0 || padding == (4 - rest) % 4);
    if well_formed && decode_digits(digits, out).is_some() {
        return true;
    }
    out.truncate(start);
    false
}

fn decode_digits(digits: &[u8], out: &mut Vec<u8>) -> Option<()> {
    for group in digits.chunks(4) {
        let mut word = 0u32;
        for byte in group {
            word = word << 6 | value(*byte)?;
        }
        word <<= 6 * (4 - group.len());
        let bytes = [(word >> 16) as u8, (word >> 8) as u8, word as u8];
        let count = group.len() - 1;
        // Bits beyond the last byte must be zero: one value, one text.
        if bytes[count..].iter().any(|b| *b != 0) {
            return None;
        }
        out.extend_from_slice(&bytes[..count]);
    }
    Some(())
}

fn value(byte: u8) -> Option<u32> {
    Some(match byte {
        b'A'..=b'Z' => (byte - b'A') as u32,
        b'a'..=b'z' => (byte - b'a') as u32 + 26,
        b'0'..=b'9' => (byte - b'0') as u32 + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}
