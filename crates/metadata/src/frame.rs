//! The form of a value in a table: CRC-32C of the JSON (4 bytes, little endian), then the JSON.
//!
//! redb checks its pages when it opens a file; the checksum here also finds what went wrong
//! between our hands and redb's, and lets one bad record be told from a bad file.

use serde::Serialize;
use serde::de::DeserializeOwned;

const TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0x82f6_3b78 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0, |crc, byte| TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8))
}

pub(crate) fn encode<V: Serialize>(value: &V) -> Result<Vec<u8>, serde_json::Error> {
    let mut framed = vec![0; 4];
    serde_json::to_writer(&mut framed, value)?;
    let crc = crc32c(&framed[4..]);
    framed[..4].copy_from_slice(&crc.to_le_bytes());
    Ok(framed)
}

/// Reads a framed value; the error is the reason in words.
pub(crate) fn decode<V: DeserializeOwned>(framed: &[u8]) -> Result<V, String> {
    let (crc, json) = framed.split_first_chunk::<4>().ok_or("shorter than its checksum")?;
    if u32::from_le_bytes(*crc) != crc32c(json) {
        return Err("checksum does not match".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_the_castagnoli_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn every_flipped_byte_is_found() {
        let framed = encode(&vec!["a", "b"]).unwrap();
        assert_eq!(decode::<Vec<String>>(&framed).unwrap(), ["a", "b"]);
        for at in 0..framed.len() {
            let mut bad = framed.clone();
            bad[at] ^= 0x20;
            assert!(decode::<Vec<String>>(&bad).is_err(), "byte {at}");
        }
        assert!(decode::<Vec<String>>(b"abc").is_err());
    }
}
