//! Small records as JSON that is proven: `{"crc32": "<8 hex digits>", "record": {…}}`, indented by two
//! spaces, with a newline at the end. The CRC is that of the record as it is written without
//! indentation. A reader takes exactly what it would write itself.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why bytes are no record.
#[derive(Debug, Error)]
pub enum Unsealed {
    /// It is not the JSON of such a record.
    #[error("it cannot be read")]
    Json(#[from] serde_json::Error),
    /// The bytes are not those that were written.
    #[error("its checksum does not fit")]
    Crc,
}

#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    crc32: String,
    record: T,
}

/// The bytes of a record.
///
/// # Errors
/// [`Unsealed::Json`] when it cannot be written as JSON.
pub fn seal<T: Serialize>(record: &T) -> Result<Bytes, Unsealed> {
    let crc32 = format!("{:08x}", crc32fast::hash(&serde_json::to_vec(record)?));
    let mut bytes = serde_json::to_vec_pretty(&Sealed { crc32, record })?;
    bytes.push(b'\n');
    Ok(bytes.into())
}

/// The record in some bytes.
///
/// # Errors
/// [`Unsealed`] unless they are exactly those that [`seal`] makes of it.
pub fn unseal<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, Unsealed> {
    let Sealed { record, .. } = serde_json::from_slice::<Sealed<T>>(bytes)?;
    if seal(&record)? == bytes { Ok(record) } else { Err(Unsealed::Crc) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_changed_byte_is_taken_for_what_was_written() {
        let record = (String::from("host"), 17u64, vec![(1u32, 2u64)], Option::<u8>::None);
        let good = seal(&record).unwrap();
        assert_eq!(unseal::<(String, u64, Vec<(u32, u64)>, Option<u8>)>(&good).unwrap(), record);
        for at in 0..good.len() {
            for with in 0..=u8::MAX {
                let mut bad = good.to_vec();
                bad[at] = with;
                let read = unseal::<(String, u64, Vec<(u32, u64)>, Option<u8>)>(&bad);
                assert_eq!(read.is_ok(), bad == good, "byte {at} as {with}");
            }
            assert!(unseal::<(String, u64, Vec<(u32, u64)>, Option<u8>)>(&good[..at]).is_err());
        }
    }
}
