//! Frames: the unit of compression, one or more chunks.

use std::io;

use crate::base::ChunkId;

/// A frame takes no further chunk that would bring it past this many bytes, before compression.
pub const TARGET: usize = 512 << 10;

/// The longest chunk, and the longest frame before compression, that a reader accepts.
pub const MAX_CHUNK: usize = 8 << 20;

/// How the bytes of a frame are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As they are.
    Raw,
    /// One zstd frame (RFC 8878) that states its content's size.
    Zstd,
}

impl Codec {
    /// Returns the codec's number on disk.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    /// Returns the codec with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// A finished frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// How it is stored.
    pub codec: Codec,
    /// Its bytes as they are stored.
    pub stored: Vec<u8>,
    /// The sum of its chunks' lengths.
    pub raw_length: u32,
    /// Its chunks in order, with their lengths.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// Puts chunks together to frames: what compresses in one, what does not in another. One for each thread.
pub struct FrameBuilder {
    compressor: zstd::bulk::Compressor<'static>,
    /// Whether all chunks go into frames that are tried to compress.
    keeps_order: bool,
    compressible: OpenFrame,
    incompressible: OpenFrame,
}

#[derive(Debug, Default)]
struct OpenFrame {
    bytes: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

impl std::fmt::Debug for FrameBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameBuilder").finish_non_exhaustive()
    }
}

impl FrameBuilder {
    /// Makes a builder that compresses with a zstd level.
    ///
    /// # Errors
    ///
    /// Fails where zstd cannot get its memory.
    pub fn new(zstd_level: i32) -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(zstd_level)?;
        compressor.include_checksum(false)?;
        Ok(Self {
            compressor,
            keeps_order: false,
            compressible: OpenFrame::default(),
            incompressible: OpenFrame::default(),
        })
    }

    /// Makes a builder whose frames have the chunks in the order in which they were added: never more than one frame is open.
    ///
    /// # Errors
    ///
    /// As [`FrameBuilder::new`].
    pub fn in_order(zstd_level: i32) -> io::Result<Self> {
        Ok(Self { keeps_order: true, ..Self::new(zstd_level)? })
    }

    /// Adds a chunk; hands finished frames to `take`.
    ///
    /// # Errors
    ///
    /// Fails where zstd cannot get its memory, and on a chunk longer than [`MAX_CHUNK`].
    pub fn add(&mut self, id: ChunkId, content: &[u8], take: &mut dyn FnMut(Frame)) -> io::Result<()> {
        let length = u32::try_from(content.len()).ok().filter(|length| *length as usize <= MAX_CHUNK);
        let length =
            length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a chunk is too long"))?;
        let is_raw = !self.keeps_order && looks_incompressible(content);
        let codec = if is_raw { Codec::Raw } else { Codec::Zstd };
        if self.open(codec).bytes.len() + content.len() > TARGET {
            self.close(codec, take)?;
        }
        let open = self.open(codec);
        open.bytes.extend_from_slice(content);
        open.chunks.push((id, length));
        Ok(())
    }

    /// Closes the frames that are open.
    ///
    /// # Errors
    ///
    /// As [`FrameBuilder::add`].
    pub fn finish(&mut self, take: &mut dyn FnMut(Frame)) -> io::Result<()> {
        self.close(Codec::Zstd, take)?;
        self.close(Codec::Raw, take)
    }

    fn open(&mut self, codec: Codec) -> &mut OpenFrame {
        match codec {
            Codec::Zstd => &mut self.compressible,
            Codec::Raw => &mut self.incompressible,
        }
    }

    fn close(&mut self, codec: Codec, take: &mut dyn FnMut(Frame)) -> io::Result<()> {
        let open = match codec {
            Codec::Zstd => &mut self.compressible,
            Codec::Raw => &mut self.incompressible,
        };
        if open.chunks.is_empty() {
            return Ok(());
        }
        let chunks = std::mem::take(&mut open.chunks);
        let raw_length = u32::try_from(open.bytes.len()).unwrap_or(u32::MAX);
        let compressed = match codec {
            Codec::Zstd => Some(self.compressor.compress(&open.bytes)?),
            Codec::Raw => None,
        };
        let frame = match compressed {
            // What saves less than a sixty-fourth is not worth the time of every reader.
            Some(stored) if stored.len() < open.bytes.len() - open.bytes.len() / 64 => {
                Frame { codec: Codec::Zstd, stored, raw_length, chunks }
            }
            Some(_) | None => Frame { codec: Codec::Raw, stored: open.bytes.clone(), raw_length, chunks },
        };
        open.bytes.clear();
        take(frame);
        Ok(())
    }
}

/// Takes frames apart. One for each thread.
pub struct FrameReader {
    decompressor: zstd::bulk::Decompressor<'static>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader").finish_non_exhaustive()
    }
}

impl FrameReader {
    /// Makes a reader.
    ///
    /// # Errors
    ///
    /// Fails where zstd cannot get its memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self { decompressor: zstd::bulk::Decompressor::new()?, buffer: Vec::new() })
    }

    /// Returns the content of a stored frame, valid until the next call. Its chunks are not verified yet.
    ///
    /// # Errors
    ///
    /// Fails on bytes that are no frame, and on a frame that says or holds more than [`MAX_CHUNK`] bytes.
    pub fn open<'a>(&'a mut self, codec: Codec, stored: &'a [u8]) -> io::Result<&'a [u8]> {
        match codec {
            Codec::Raw => Ok(stored),
            Codec::Zstd => {
                let size = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten();
                let size = size.and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= MAX_CHUNK);
                let size = size.ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, "a frame says no size, or too much")
                })?;
                self.buffer.clear();
                self.buffer.reserve(size);
                self.decompressor.decompress_to_buffer(stored, &mut self.buffer)?;
                // The buffer may be larger than this frame, and what stands behind it would be taken for a part of it.
                if self.buffer.len() != size {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a frame has another size than it says",
                    ));
                }
                Ok(&self.buffer)
            }
        }
    }
}

/// Returns whether compressing would be in vain: what a magic number says is compressed already, or bytes that are spread evenly.
fn looks_incompressible(content: &[u8]) -> bool {
    /// Below this a sample says too little, and little is lost.
    const SMALLEST: usize = 4 << 10;
    if content.len() < SMALLEST {
        return false;
    }
    const MAGIC: [&[u8]; 9] = [
        b"\x1f\x8b",         // gzip
        b"\x28\xb5\x2f\xfd", // zstd
        b"\xfd7zXZ\0",       // xz
        b"BZh",              // bzip2
        b"PK\x03\x04",       // zip: wheels, jars
        b"\x89PNG",
        b"\xff\xd8\xff", // JPEG
        b"wOF2",
        b"7z\xbc\xaf\x27\x1c",
    ];
    // A magic number speaks for the beginning only, so the sample has to agree, if less strictly.
    let entropy = sampled_entropy(content);
    entropy > 7.8 || entropy > 7.3 && MAGIC.iter().any(|magic| content.starts_with(magic))
}

/// Returns the order-0 entropy, in bits a byte, of 16 samples of 256 bytes spread over the content.
fn sampled_entropy(content: &[u8]) -> f64 {
    const SAMPLES: usize = 16;
    const SAMPLE: usize = 256;
    let mut counts = [0_u32; 256];
    let stride = (content.len() - SAMPLE) / (SAMPLES - 1);
    for sample in 0..SAMPLES {
        let start = sample * stride;
        for byte in content.get(start..start + SAMPLE).unwrap_or_default() {
            counts[usize::from(*byte)] += 1;
        }
    }
    let total = f64::from(u32::try_from(SAMPLES * SAMPLE).unwrap_or(u32::MAX));
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / total;
            -share * share.log2()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(length as u64);
        (0..length).map(|_| random.u8(..)).collect()
    }

    fn frames_of(chunks: &[Vec<u8>]) -> Vec<Frame> {
        let (mut builder, mut frames) = (FrameBuilder::new(1).unwrap(), Vec::new());
        for chunk in chunks {
            builder.add(ChunkId::of(chunk), chunk, &mut |frame| frames.push(frame)).unwrap();
        }
        builder.finish(&mut |frame| frames.push(frame)).unwrap();
        frames
    }

    #[test]
    fn frames_give_back_their_chunks() {
        let chunks: Vec<Vec<u8>> =
            (0..40_usize)
                .map(|n| {
                    if n % 3 == 0 {
                        noise(30_000 + n)
                    } else {
                        format!("text {n} ").repeat(2_000).into_bytes()
                    }
                })
                .collect();
        let frames = frames_of(&chunks);
        let mut reader = FrameReader::new().unwrap();
        let mut seen = 0;
        for frame in &frames {
            assert!(frame.raw_length as usize <= TARGET);
            let content = reader.open(frame.codec, &frame.stored).unwrap();
            let mut rest = content;
            for (id, length) in &frame.chunks {
                let (chunk, behind) = rest.split_at(*length as usize);
                assert_eq!(ChunkId::of(chunk), *id);
                rest = behind;
                seen += 1;
            }
            assert!(rest.is_empty());
        }
        assert_eq!(seen, chunks.len());
        assert!(frames.iter().any(|frame| frame.codec == Codec::Raw));
        assert!(frames.iter().any(|frame| frame.codec == Codec::Zstd));
    }

    #[test]
    fn a_large_chunk_has_a_frame_of_its_own() {
        let frames = frames_of(&[vec![1; 10], vec![2; 600 << 10], vec![3; 10]]);
        assert_eq!(frames.iter().map(|frame| frame.chunks.len()).collect::<Vec<_>>(), [1, 1, 1]);
    }

    /// The buffer keeps its size from frame to frame, so that whether a second zstd frame behind the first fit into it, and was
    /// handed out as content, hung on what had been read before.
    #[test]
    fn a_frame_with_another_size_than_it_says_is_refused() {
        let mut two = zstd::bulk::compress(&[1; 100], 1).unwrap();
        two.extend_from_slice(&zstd::bulk::compress(&[2; 100], 1).unwrap());
        let large = zstd::bulk::compress(&[3; 10_000], 1).unwrap();
        let mut reader = FrameReader::new().unwrap();
        assert!(reader.open(Codec::Zstd, &two).is_err());
        assert_eq!(reader.open(Codec::Zstd, &large).unwrap().len(), 10_000);
        assert!(reader.open(Codec::Zstd, &two).is_err());
    }

    #[test]
    fn a_frame_that_says_too_much_is_refused_before_memory_is_taken() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_CHUNK + 1], 1).unwrap();
        assert!(FrameReader::new().unwrap().open(Codec::Zstd, &bomb).is_err());
        assert!(FrameReader::new().unwrap().open(Codec::Zstd, b"no frame").is_err());
    }
}
