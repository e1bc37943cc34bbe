//! Where contents are cut into chunks, so that an edit changes few of them.

use fastcdc::v2020::FastCDC;

/// Files up to this many bytes are one chunk.
pub const WHOLE_FILE_MAX: usize = 128 << 10;
/// The shortest chunk of a larger file, in bytes; only its last one may be shorter.
pub const MIN: usize = 16 << 10;
/// The length in bytes that chunks have on average.
pub const AVERAGE: usize = 64 << 10;
/// The longest chunk of a larger file, in bytes. No chunk of any kind is longer than [`super::frame::MAX_CHUNK`].
pub const MAX: usize = 256 << 10;

/// Cuts what a window of a larger file holds: FastCDC (2020, normalisation level 1, seed 0) after Xia et al., "The Design of
/// Fast Content-Defined Chunking for Data Deduplication Based Storage Systems", IEEE TPDS 31(9), 2020.
///
/// Returns the lengths of the chunks that are settled. Where the file goes on behind the window, a chunk that could still grow is
/// left out: the caller moves what is behind the last cut to the front and fills the window up. A window of at least [`MAX`]
/// bytes always settles one.
#[must_use]
pub fn cut(window: &[u8], is_end_of_file: bool) -> Vec<usize> {
    let chunker = FastCDC::new(window, MIN, AVERAGE, MAX);
    let mut lengths = Vec::with_capacity(window.len() / AVERAGE + 1);
    let mut start = 0;
    while start < window.len() && (is_end_of_file || window.len() - start >= MAX) {
        let (_hash, end) = chunker.cut(start, window.len() - start);
        lengths.push(end - start);
        start = end;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256Digest;

    /// Bytes that no other version of a crate makes otherwise: the digests of 0, 1, 2, …
    fn noise(length: usize) -> Vec<u8> {
        let blocks = (0..length.div_ceil(32)).flat_map(|n| *Sha256Digest::of(&n.to_le_bytes()).as_bytes());
        blocks.take(length).collect()
    }

    /// Cuts as a reader with windows of `window` bytes does.
    fn cut_by_windows(data: &[u8], window: usize) -> Vec<usize> {
        let (mut lengths, mut start) = (Vec::new(), 0);
        while start < data.len() {
            let end = data.len().min(start + window);
            let cuts = cut(&data[start..end], end == data.len());
            start += cuts.iter().sum::<usize>();
            lengths.extend(cuts);
        }
        lengths
    }

    /// The cut points are part of the format: another crate version that moved them would store everything again.
    #[test]
    fn cut_points_are_frozen() {
        let lengths = cut(&noise(2 << 20), true);
        let text: String = lengths.iter().map(|length| format!("{length} ")).collect();
        assert_eq!(&lengths[..8], [151_071, 87_658, 121_224, 76_346, 26_475, 115_751, 72_166, 110_054]);
        assert_eq!(
            Sha256Digest::of(text.as_bytes()).to_string(),
            "3dfaacaca59b898c95d13f312e14f4bc6c151bf1c6101adf55f107428650c161"
        );
    }

    #[test]
    fn windows_do_not_move_the_cuts() {
        let data = noise(3 << 20);
        let whole = cut(&data, true);
        for window in [MAX, MAX + 1, 1 << 20, 4 << 20] {
            assert_eq!(cut_by_windows(&data, window), whole, "{window}");
        }
        assert!(whole.iter().rev().skip(1).all(|length| (MIN..=MAX).contains(length)));
    }

    #[test]
    fn an_edit_moves_only_the_cuts_around_it() {
        let mut data = noise(4 << 20);
        let before: Vec<usize> = ends(&cut(&data, true));
        data.splice(1_000_000..1_000_000, *b"inserted");
        let after: Vec<usize> =
            ends(&cut(&data, true)).into_iter().map(|end| end.saturating_sub(8)).collect();
        let kept = before.iter().filter(|end| **end < 700_000 || after.contains(end)).count();
        assert!(kept + 8 >= before.len(), "{kept} of {}", before.len());
    }

    fn ends(lengths: &[usize]) -> Vec<usize> {
        lengths
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end)
            })
            .collect()
    }
}
