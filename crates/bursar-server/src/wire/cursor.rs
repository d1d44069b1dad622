//! Cursors of lists that are ordered by a time and an id: 16 bytes that clients pass back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bursar_core::Timestamp;

/// The cursor after this row.
pub(crate) fn text(at: Timestamp, id: i64) -> String {
    let mut bytes = [0u8; 16];
    let (first, second) = bytes.split_at_mut(8);
    first.copy_from_slice(&at.micros().to_be_bytes());
    second.copy_from_slice(&id.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Parses a cursor; `make` creates the id.
///
/// # Errors
/// The rest of a sentence about the parameter.
pub(crate) fn parse<T>(
    text: &str,
    make: impl FnOnce(i64) -> Option<T>,
) -> Result<(Timestamp, T), &'static str> {
    const WRONG: &str = "must be the next_cursor of an earlier page";
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| WRONG)?;
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| WRONG)?;
    let both = u128::from_be_bytes(bytes);
    let (first, second) = ((both >> 64) as u64 as i64, both as u64 as i64);
    Timestamp::from_micros(first).zip(make(second)).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_leads_back_and_nothing_else_is_one() {
        let at = Timestamp::from_micros(1_780_000_000_000_001).unwrap();
        for id in [1, i64::MAX] {
            assert_eq!(parse(&text(at, id), Some), Ok((at, id)));
        }
        let longer = text(at, 1) + "AAAA";
        for wrong in ["", "AAAA", "!", longer.as_str()] {
            assert!(parse(wrong, Some).is_err(), "{wrong}");
        }
        assert!(parse(&text(at, 1), |_| None::<i64>).is_err());
    }
}
