//! gzip and zstd around an archive.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read, Write};

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::error::ArchiveError;

/// 128 MiB, what `zstd` itself grants without being asked: a frame that wants more memory is refused.
const MAX_WINDOW_LOG: u32 = 27;

/// 64 KiB: headers are read from here, larger pieces of data go past it.
const BUFFER: usize = 64 << 10;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArchiveFormat {
    /// Not at all.
    Tar,
    /// With gzip.
    TarGz,
    /// With zstd.
    TarZst,
}

impl ArchiveFormat {
    /// Returns the usual ending of a file's name, without a dot before it.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::TarZst => "tar.zst",
        }
    }

    /// Returns a writer that compresses into `inner`. The same bytes and level give the same output.
    ///
    /// `level` is the program's own scale, 0 to 9 for gzip and 1 to 22 for zstd; `None` is its default.
    ///
    /// # Errors
    ///
    /// Fails where the compressor cannot be made.
    pub fn wrap<W: Write>(self, inner: W, level: Option<i32>) -> io::Result<ArchiveSink<W>> {
        let inner = Gate { inner: Some(inner) };
        let encoder = match self {
            Self::Tar => Encoder::Plain(inner),
            Self::TarGz => {
                let level = level.map_or(6, |level| u32::try_from(level.clamp(0, 9)).unwrap_or_default());
                Encoder::Gzip(GzEncoder::new(inner, flate2::Compression::new(level)))
            }
            Self::TarZst => {
                let mut encoder =
                    zstd::Encoder::new(inner, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))?;
                encoder.include_checksum(true)?;
                Encoder::Zstd(encoder)
            }
        };
        Ok(ArchiveSink { encoder })
    }
}

/// Compresses an archive. What is not finished stays cut off: no trailer is written when it is dropped.
pub struct ArchiveSink<W: Write> {
    encoder: Encoder<W>,
}

enum Encoder<W: Write> {
    Plain(Gate<W>),
    Gzip(GzEncoder<Gate<W>>),
    Zstd(zstd::Encoder<'static, Gate<W>>),
}

/// Takes no more bytes once its writer is gone.
struct Gate<W> {
    inner: Option<W>,
}

impl<W> Gate<W> {
    fn open(&mut self) -> io::Result<&mut W> {
        self.inner.as_mut().ok_or_else(|| io::Error::other("the archive is closed"))
    }

    fn into_inner(self) -> io::Result<W> {
        self.inner.ok_or_else(|| io::Error::other("the archive is closed"))
    }
}

impl<W: Write> Write for Gate<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

impl<W: Write> ArchiveSink<W> {
    /// Writes the trailer, flushes, and returns the writer.
    ///
    /// # Errors
    ///
    /// Whatever the writer reports.
    pub fn finish(mut self) -> io::Result<W> {
        let mut inner = match &mut self.encoder {
            Encoder::Plain(gate) => gate.inner.take(),
            Encoder::Gzip(encoder) => {
                encoder.try_finish()?;
                encoder.get_mut().inner.take()
            }
            Encoder::Zstd(encoder) => {
                encoder.do_finish()?;
                encoder.get_mut().inner.take()
            }
        };
        inner.as_mut().map(Write::flush).transpose()?;
        Gate { inner }.into_inner()
    }
}

impl<W: Write> Drop for ArchiveSink<W> {
    fn drop(&mut self) {
        // The gzip encoder writes a trailer when it is dropped, which would make a whole file of half an archive.
        match &mut self.encoder {
            Encoder::Plain(gate) => gate.inner = None,
            Encoder::Gzip(encoder) => encoder.get_mut().inner = None,
            Encoder::Zstd(encoder) => encoder.get_mut().inner = None,
        }
    }
}

impl<W: Write> Write for ArchiveSink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.encoder {
            Encoder::Plain(gate) => gate.write(bytes),
            Encoder::Gzip(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.encoder {
            Encoder::Plain(gate) => gate.flush(),
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

impl<W: Write> fmt::Debug for ArchiveSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match self.encoder {
            Encoder::Plain(_) => ArchiveFormat::Tar,
            Encoder::Gzip(_) => ArchiveFormat::TarGz,
            Encoder::Zstd(_) => ArchiveFormat::TarZst,
        };
        f.debug_struct("ArchiveSink").field("format", &format).finish_non_exhaustive()
    }
}

/// The stream's own failures, to be told from those of a decoder above it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct StreamFailed(io::Error);

/// The stream that brings the archive.
struct Upstream<R>(R);

impl<R: Read> Read for Upstream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| io::Error::new(error.kind(), StreamFailed(error)))
    }
}

type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, Upstream<R>>>;

/// An archive's bytes, unpacked.
pub(super) struct Unpacked<R: Read> {
    decoder: Decoder<R>,
    failed: bool,
}

enum Decoder<R: Read> {
    /// Nothing was read yet.
    Unknown(Option<R>),
    Plain(Input<R>),
    Gzip(GzipMembers<Input<R>>),
    Zstd(zstd::Decoder<'static, Input<R>>),
}

impl<R: Read> Unpacked<R> {
    /// Reads nothing yet.
    pub(super) fn new(stream: R) -> Self {
        Self { decoder: Decoder::Unknown(Some(stream)), failed: false }
    }

    /// Returns how the stream is compressed, once it is known.
    pub(super) fn format(&self) -> ArchiveFormat {
        match &self.decoder {
            Decoder::Unknown(_) | Decoder::Plain(_) => ArchiveFormat::Tar,
            Decoder::Gzip(_) => ArchiveFormat::TarGz,
            Decoder::Zstd(_) => ArchiveFormat::TarZst,
        }
    }

    /// Looks at the first bytes and chooses the decoder.
    fn recognise(stream: R) -> io::Result<Decoder<R>> {
        let mut stream = Upstream(stream);
        let mut magic = Vec::new();
        stream.by_ref().take(6).read_to_end(&mut magic)?;
        let gzip = magic.starts_with(b"\x1f\x8b");
        // The second is a frame that a decoder skips; some writers begin with one.
        let zstd =
            matches!(magic.as_slice(), [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
        let foreign = match magic.as_slice() {
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] => Some("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Some("xz"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
            [b'P', b'K', 3, 4, ..] => Some("zip"),
            _ => None,
        };
        if let Some(format) = foreign {
            return Err(io::Error::other(Foreign(format)));
        }
        let input = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(stream));
        Ok(if gzip {
            Decoder::Gzip(GzipMembers::Within(Box::new(GzDecoder::new(input))))
        } else if zstd {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            Decoder::Zstd(decoder)
        } else {
            Decoder::Plain(input)
        })
    }

    /// Makes an archive's error of what reading reported.
    pub(super) fn explain(&self, error: io::Error, place: &str) -> ArchiveError {
        let kind = error.kind();
        let format = match self.format() {
            ArchiveFormat::Tar | ArchiveFormat::TarGz => "gzip",
            ArchiveFormat::TarZst => "zstd",
        };
        let inner = error.get_ref();
        if inner.is_some_and(<dyn Error + Send + Sync>::is::<StreamFailed>) {
            let inner = error.into_inner().and_then(|inner| inner.downcast::<StreamFailed>().ok());
            return ArchiveError::Read(inner.map_or_else(|| io::Error::from(kind), |failed| failed.0));
        }
        if let Some(Foreign(format)) = inner.and_then(|inner| inner.downcast_ref::<Foreign>()) {
            return ArchiveError::Unsupported {
                place: "the archive".to_owned(),
                what: format!("a stream compressed with {format}"),
            };
        }
        if error.to_string().contains("too much memory") {
            return ArchiveError::Unsupported {
                place: "the archive".to_owned(),
                what: format!(
                    "a zstd frame with a window of more than {} MiB",
                    (1_u64 << MAX_WINDOW_LOG) >> 20
                ),
            };
        }
        if kind == io::ErrorKind::UnexpectedEof {
            return ArchiveError::CutOff { place: place.to_owned() };
        }
        ArchiveError::Unpack { format, source: error }
    }
}

/// A stream of a kind that is not read here.
#[derive(Debug, thiserror::Error)]
#[error("compressed with {0}")]
struct Foreign(&'static str);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other("reading has failed before"));
        }
        if let Decoder::Unknown(stream) = &mut self.decoder
            && let Some(stream) = stream.take()
        {
            self.decoder = Self::recognise(stream).inspect_err(|_| self.failed = true)?;
        }
        let result = match &mut self.decoder {
            Decoder::Unknown(_) => Ok(0),
            Decoder::Plain(input) => input.read(buffer),
            Decoder::Gzip(members) => members.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        };
        self.failed = result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        result
    }
}

/// gzip members one after the other. What follows the last one and is no member is left alone, as `gzip` does.
enum GzipMembers<B: BufRead> {
    Within(Box<GzDecoder<B>>),
    Ended,
}

impl<B: BufRead> Read for GzipMembers<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Self::Within(decoder) = self {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let more = decoder.get_mut().fill_buf()?.first() == Some(&0x1f);
            if let Self::Within(decoder) = std::mem::replace(self, Self::Ended)
                && more
            {
                *self = Self::Within(Box::new(GzDecoder::new(decoder.into_inner())));
            }
        }
        Ok(0)
    }
}
