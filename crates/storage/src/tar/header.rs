//! The fixed 512 bytes before each member.

use super::{BLOCK, Entry, Kind};

pub(super) struct Header([u8; BLOCK]);

type Refusal = &'static str;

impl Header {
    /// Accepts a block whose checksum is right, summed as unsigned or (old Sun tars) signed.
    pub(super) fn parse(block: [u8; BLOCK]) -> Result<Self, Refusal> {
        let stated = number(&block[148..156])?;
        let field = 148..156;
        let (mut unsigned, mut signed) = (0i64, 0i64);
        for (at, byte) in block.iter().enumerate() {
            let byte = if field.contains(&at) { b' ' } else { *byte };
            unsigned += i64::from(byte);
            signed += i64::from(byte.cast_signed());
        }
        if stated != unsigned && stated != signed {
            return Err("wrong checksum");
        }
        Ok(Self(block))
    }

    pub(super) const fn type_flag(&self) -> u8 {
        self.0[156]
    }

    /// The kind, given the final name: an old header marks a directory by a trailing slash.
    pub(super) fn kind(&self, path: &[u8]) -> Result<Kind, Refusal> {
        Ok(match self.type_flag() {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err("unhandled member type"),
        })
    }

    pub(super) fn size(&self) -> Result<u64, Refusal> {
        u64::try_from(number(&self.0[124..136])?).map_err(|_negative| "negative size")
    }

    /// Everything that is in the header itself. Kind and size are the caller's to settle.
    pub(super) fn entry(&self) -> Result<Entry, Refusal> {
        let device = |field| u32::try_from(number(field)?).map_err(|_range| "bad device number");
        let id = |field| u32::try_from(number(field)?).map_err(|_range| "owner out of range");
        let is_device = matches!(self.type_flag(), b'3' | b'4');
        Ok(Entry {
            path: self.path(),
            link: text(&self.0[157..257]).to_vec(),
            kind: Kind::File,
            mode: (number(&self.0[100..108])? & 0o7777) as u32,
            uid: id(&self.0[108..116])?,
            gid: id(&self.0[116..124])?,
            mtime: (number(&self.0[136..148])?, 0),
            device: if is_device {
                (device(&self.0[329..337])?, device(&self.0[337..345])?)
            } else {
                (0, 0)
            },
            size: 0,
            xattrs: Vec::new(),
            sparse: None,
        })
    }

    /// The name, with the prefix that only ustar and star have.
    fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let ustar = &self.0[257..263] == b"ustar\0";
        let prefix: &[u8] = match &self.0[508..512] {
            _ if !ustar => b"",
            b"tar\0" => text(&self.0[345..476]),
            _ => text(&self.0[345..500]),
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Old GNU sparse: the file's length, and whether more blocks of the map follow.
    pub(super) fn sparse_size(&self) -> Result<(u64, bool), Refusal> {
        let size =
            u64::try_from(number(&self.0[483..495])?).map_err(|_negative| "negative size")?;
        Ok((size, self.0[482] != 0))
    }

    pub(super) fn sparse_fields(&self) -> &[u8] {
        &self.0[386..482]
    }
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// An octal number, or GNU's base-256 form: the top bit set, then big-endian two's complement.
pub(super) fn number(field: &[u8]) -> Result<i64, Refusal> {
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        return binary(field);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
    let end = field.iter().rposition(|byte| !blank(byte)).map_or(start, |at| at + 1);
    field[start..end].iter().try_fold(0i64, |value, byte| match byte {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(i64::from(byte - b'0')))
            .ok_or("number out of range"),
        _ => Err("number is not octal"),
    })
}

fn binary(field: &[u8]) -> Result<i64, Refusal> {
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        let byte = match at {
            0 if negative => *byte,
            0 => byte & 0x7f,
            _ => *byte,
        };
        value = (value << 8) | i128::from(byte);
        if i64::try_from(value).is_err() {
            return Err("number out of range");
        }
    }
    i64::try_from(value).map_err(|_range| "number out of range")
}
