//! Base64 that is passed on as it came.

/// True for what a model server can decode: the standard alphabet, padded; line feeds are skipped.
pub fn is_base64(text: &str) -> bool {
    let (mut digits, mut padding) = (0_usize, 0);
    for c in text.bytes() {
        match c {
            b'\r' | b'\n' => {}
            b'=' => padding += 1,
            b'+' | b'/' if padding == 0 => digits += 1,
            _ if padding == 0 && c.is_ascii_alphanumeric() => digits += 1,
            _ => return false,
        }
    }
    digits > 0 && padding <= 2 && (digits + padding).is_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_whole_groups_of_its_alphabet() {
        for right in ["AAAA", "AA==", "AAA=", "ab+/\nAA\r\n==\n"] {
            assert!(is_base64(right), "{right:?}");
        }
        for wrong in ["", "%%%", "AAA", "A===", "AA=A", "AAAA====", "AA-_", "AA A", "===="] {
            assert!(!is_base64(wrong), "{wrong:?}");
        }
    }
}
