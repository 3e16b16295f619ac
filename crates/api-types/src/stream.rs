//! The framing of multiplexed output: `{stream, 0, 0, 0, length (big endian)}` and the bytes.

pub const RAW: &str = "application/vnd.docker.raw-stream";
pub const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
pub const HEADER_LEN: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    /// An error text of the daemon itself.
    System = 3,
}

/// Returns the header of a frame of `length` bytes.
pub const fn header(kind: StreamKind, length: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = length.to_be_bytes();
    [kind as u8, 0, 0, 0, a, b, c, d]
}

/// Reads a header; `None` for a stream number that does not exist.
pub const fn parse_header(header: [u8; HEADER_LEN]) -> Option<(StreamKind, u32)> {
    let kind = match header[0] {
        0 => StreamKind::Stdin,
        1 => StreamKind::Stdout,
        2 => StreamKind::Stderr,
        3 => StreamKind::System,
        _ => return None,
    };
    Some((kind, u32::from_be_bytes([header[4], header[5], header[6], header[7]])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_round_trip() {
        assert_eq!(header(StreamKind::Stderr, 258), [2, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(parse_header([2, 0, 0, 0, 0, 0, 1, 2]), Some((StreamKind::Stderr, 258)));
        assert_eq!(parse_header([9, 0, 0, 0, 0, 0, 1, 2]), None);
    }
}
