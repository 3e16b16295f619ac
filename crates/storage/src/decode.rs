//! Decompression of what strangers send: gzip, zstd, xz, bzip2 or nothing, told apart by the first
//! bytes.
//!
//! A [`Decoder`] stops decompression bombs while they expand: by the ratio of what went in to
//! what came out, and by the memory that zstd and xz may ask for.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StorageError;

/// Below this much output no ratio is suspicious.
const RATIO_FLOOR: u64 = 1 << 30;
/// zstd windows up to 128 MiB (`--ultra -22`, `--long=27`); a larger one would be memory for the
/// asking.
const ZSTD_WINDOW_LOG: u32 = 27;
/// `xz -9` needs 65 MiB.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// The most that may come out for each byte that went in. gzip itself reaches about 1030.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct Ratio {
    pub most: u64,
    /// Output below which the ratio is not looked at.
    pub floor: u64,
}

impl Default for Ratio {
    fn default() -> Self {
        Self { most: 1000, floor: RATIO_FLOOR }
    }
}

/// The stream in the clear.
pub struct Decoder<'input> {
    inner: Box<dyn Read + Send + 'input>,
    taken: Arc<AtomicU64>,
    given: Cell<u64>,
    ratio: Option<Ratio>,
}

impl std::fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("given", &self.given).finish_non_exhaustive()
    }
}

/// Carried inside an `io::Error` so that it survives the layers of `Read` above it.
#[derive(Debug, thiserror::Error)]
#[error("expands more than {ratio} times")]
struct BombError {
    ratio: u64,
}

/// Turns the error of a read back into what a [`Decoder`] meant by it.
pub fn as_storage_error(error: &io::Error) -> Option<StorageError> {
    let inner = error.get_ref()?.downcast_ref::<BombError>()?;
    Some(StorageError::Bomb { ratio: inner.ratio })
}

impl<'input> Decoder<'input> {
    pub fn new(input: impl Read + Send + 'input, ratio: Ratio) -> Result<Self, StorageError> {
        let taken = Arc::new(AtomicU64::new(0));
        let mut input = Counting { input, taken: Arc::clone(&taken) };
        let head = read_head(&mut input).map_err(crate::tar::TarError::from)?;
        let format = Format::of(&head);
        let whole = Cursor::new(head).chain(input);
        let decoding = |source| crate::tar::TarError::Read { source };
        let inner: Box<dyn Read + Send + 'input> = match format {
            Format::Plain => Box::new(whole),
            Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(whole))),
            Format::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(buffered(whole)).map_err(decoding)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(decoding)?;
                Box::new(decoder)
            }
            Format::Xz => {
                let input = buffered(whole);
                Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY_KIB))
            }
            Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(whole))),
        };
        let ratio = (format != Format::Plain).then_some(ratio);
        Ok(Self { inner, taken, given: Cell::new(0), ratio })
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let given = self.given.get() + length as u64;
        self.given.set(given);
        if let Some(ratio) = self.ratio
            && given > ratio.floor
            && given / ratio.most > self.taken.load(Ordering::Relaxed)
        {
            return Err(io::Error::other(BombError { ratio: ratio.most }));
        }
        Ok(length)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Format {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => Self::Bzip2,
            _ => Self::Plain,
        }
    }
}

fn read_head(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(6);
    input.take(6).read_to_end(&mut head)?;
    Ok(head)
}

fn buffered<R: Read>(input: R) -> BufReader<R> {
    BufReader::with_capacity(64 << 10, input)
}

struct Counting<R> {
    input: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.taken.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn decode(bytes: &[u8], ratio: Ratio) -> Result<Vec<u8>, String> {
        let mut decoder = Decoder::new(bytes, ratio).map_err(|error| error.to_string())?;
        let mut output = Vec::new();
        match decoder.read_to_end(&mut output) {
            Ok(_) => Ok(output),
            Err(error) => Err(as_storage_error(&error)
                .map_or_else(|| error.to_string(), |error| error.to_string())),
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// By the real program, from the packages `xz-utils` and `bzip2`.
    fn pack(program: &str, bytes: &[u8]) -> Vec<u8> {
        use std::process::{Command, Stdio};
        let mut command = Command::new(program);
        let mut child =
            command.arg("-9c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || input.write_all(bytes).unwrap());
            child.wait_with_output().unwrap().stdout
        })
    }

    #[test]
    fn forms_are_told_apart() {
        let any = Ratio::default();
        let text = b"hello hello hello".to_vec();
        assert_eq!(decode(&text, any), Ok(text.clone()));
        assert_eq!(decode(&[], any), Ok(Vec::new()));
        assert_eq!(decode(&gzip(&text), any), Ok(text.clone()));
        let two = [gzip(b"hello hello "), gzip(b"hello")].concat();
        assert_eq!(decode(&two, any), Ok(text.clone()));
        assert_eq!(decode(&zstd::encode_all(&*text, 1).unwrap(), any), Ok(text.clone()));
        for program in ["xz", "bzip2"] {
            let packed = pack(program, &text);
            assert_eq!(decode(&packed, any), Ok(text.clone()), "{program}");
            assert_eq!(decode(&[&packed[..], &packed].concat(), any), Ok(text.repeat(2)));
            let half = &packed[..packed.len() / 2];
            assert!(decode(half, any).is_err(), "{program}");
            let mut broken = packed.clone();
            broken[packed.len() / 2] ^= 0x55;
            assert!(decode(&broken, any).is_err(), "{program}");
        }
        assert!(decode(b"\xfd7zXZ\0....", any).is_err());
        assert!(decode(b"BZh91AY&SY", any).is_err());
        assert!(decode(&gzip(b"cut")[..12], any).is_err());
    }

    #[test]
    fn bombs_stop_while_they_expand() {
        let ratio = Ratio { most: 100, floor: 1 << 20 };
        let zeros = vec![0; 8 << 20];
        let bomb = Err("layer expands more than 100 times: refused as a decompression bomb".into());
        assert_eq!(decode(&gzip(&zeros), ratio), bomb);
        assert_eq!(decode(&zstd::encode_all(&*zeros, 1).unwrap(), ratio), bomb);
        assert_eq!(decode(&pack("xz", &zeros), ratio), bomb);
        assert_eq!(decode(&pack("bzip2", &zeros), ratio), bomb);
        assert!(decode(&gzip(&zeros[..1 << 19]), ratio).is_ok());
        assert!(decode(&zeros, ratio).is_ok());
    }

    #[test]
    fn xz_dictionaries_are_bounded() {
        // A stream and a block header that ask for a dictionary of 4 GiB - 1.
        let mut stream = b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46".to_vec();
        stream.extend([2, 0, 0x21, 1, 40, 0, 0, 0]);
        let mut sum = flate2::Crc::new();
        sum.update(&stream[12..]);
        stream.extend(sum.sum().to_le_bytes());
        stream.resize(64, 0);
        let error = decode(&stream, Ratio::default()).unwrap_err();
        assert!(error.contains("memory too big"), "{error}");
    }

    #[test]
    fn zstd_windows_are_bounded() {
        // A frame header that asks for a window of 2 GiB.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (31 - 10) << 3, 0, 0, 0];
        let error = decode(&frame, Ratio::default()).unwrap_err();
        assert!(error.contains("Frame requires too much memory"), "{error}");
    }
}
