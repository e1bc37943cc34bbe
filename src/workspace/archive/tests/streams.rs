//! Compression, cut streams, memory.

use std::io::{self, Read, Write};

use super::tape::{Tape, header, read, read_right, read_with};
use crate::base::{Classify, ErrorKind};
use crate::workspace::archive::{
    ArchiveEnd, ArchiveError, ArchiveFormat, ArchiveLimits, ArchivedEntry, read_archive, read_untrusted,
};

fn small() -> Vec<u8> {
    Tape::new().file("a", b"one").pax(&[("path", "b"), ("mtime", "1.5")]).file("x", &[b'2'; 700]).end()
}

fn packed(format: ArchiveFormat, bytes: &[u8]) -> Vec<u8> {
    let mut sink = format.wrap(Vec::new(), None).unwrap();
    sink.write_all(bytes).unwrap();
    sink.finish().unwrap()
}

/// Gives a byte at a time, as a slow pipe may.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(1);
        (&mut self.0).take(count as u64).read(buffer)
    }
}

#[test]
fn every_format_is_known_by_its_first_bytes() {
    let wanted = read_right(&small()).0;
    for format in [ArchiveFormat::Tar, ArchiveFormat::TarGz, ArchiveFormat::TarZst] {
        let bytes = packed(format, &small());
        assert_eq!(bytes, packed(format, &small()), "{format:?}");
        let (found, summary) = read_right(&bytes);
        assert_eq!((&found, summary.format, summary.end), (&wanted, format, ArchiveEnd::Marked));
        let (found, summary) = read_with(Slow(&bytes), ArchiveLimits::default());
        assert_eq!((&found, summary.unwrap().format), (&wanted, format));
    }
}

#[test]
fn members_and_frames_in_a_row_make_one_stream() {
    let bytes = small();
    for format in [ArchiveFormat::TarGz, ArchiveFormat::TarZst] {
        for cut in [1, 300, 512, 1024, bytes.len() - 1] {
            let parts =
                [packed(format, &bytes[..cut]), packed(format, b""), packed(format, &bytes[cut..])].concat();
            assert_eq!(read_right(&parts).0, read_right(&bytes).0, "{format:?} {cut}");
        }
    }
    // A frame to be skipped, as some writers begin with.
    let skipped = [&b"\x50\x2a\x4d\x18\x03\0\0\0abc"[..], &packed(ArchiveFormat::TarZst, &bytes)].concat();
    assert_eq!(read_right(&skipped).1.format, ArchiveFormat::TarZst);
    // What follows a gzip stream and is none is left alone, as gzip does.
    let trailing = [&packed(ArchiveFormat::TarGz, &bytes)[..], b"\0\0\0\0"].concat();
    read_right(&trailing);
}

#[test]
fn foreign_and_oversized_streams_are_named() {
    for (bytes, wanted) in [
        (&b"BZh91AY&SY"[..], "compressed with bzip2"),
        (b"\xfd7zXZ\0\0", "compressed with xz"),
        (b"PK\x03\x04\0\0", "compressed with zip"),
        (b"\x28\xb5\x2f\xfd\x00\x90\x01\0\0", "a window of more than 128 MiB"),
    ] {
        let error = read(bytes).1.unwrap_err();
        assert!(matches!(error, ArchiveError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn damage_in_a_compressed_stream_is_seen() {
    let wanted = read_right(&small()).0;
    for format in [ArchiveFormat::TarGz, ArchiveFormat::TarZst] {
        let right = packed(format, &small());
        for at in 4..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 0x40;
            // Some bits say nothing: the time in the gzip header, or how far back in a run of zeros to look.
            let (found, outcome) = read(&wrong);
            assert!(outcome.is_err() || found == wanted, "{format:?} {at}: {outcome:?}");
        }
        for cut in 0..right.len() {
            assert!(read(&right[..cut]).1.is_err(), "{format:?} cut at {cut}");
        }
    }
}

#[test]
fn an_archive_cut_anywhere_is_refused_or_ends_after_a_whole_entry() {
    let bytes = small();
    let (whole, _) = read_right(&bytes);
    assert!(matches!(read(b"").1, Err(ArchiveError::Empty)));
    for cut in 1..bytes.len() {
        let (found, outcome) = read(&bytes[..cut]);
        assert_eq!(found[..], whole[..found.len()], "{cut}");
        let wanted = match cut {
            1024 => Some(ArchiveEnd::Unmarked),
            cut if cut == bytes.len() - 1024 => Some(ArchiveEnd::Unmarked),
            cut if cut >= bytes.len() - 512 => Some(ArchiveEnd::HalfMarked),
            _ => None,
        };
        assert_eq!(outcome.as_ref().ok().map(|summary| summary.end), wanted, "{cut}: {outcome:?}");
        assert!(read_untrusted(&bytes[..cut]).is_ok() == wanted.is_some());
    }
}

#[test]
fn whatever_follows_the_end_is_left_alone() {
    let wanted = read_right(&small()).0;
    let lone = Tape(small()[..small().len() - 512].to_vec()).file("hidden", b"x").end();
    for (bytes, end) in [
        ([&small()[..], &[0; 9000]].concat(), ArchiveEnd::Marked),
        ([&small()[..], b"garbage"].concat(), ArchiveEnd::Marked),
        ([small(), small()].concat(), ArchiveEnd::Marked),
        (lone, ArchiveEnd::HalfMarked),
    ] {
        let (found, summary) = read_right(&bytes);
        assert_eq!((found, summary.end), (wanted.clone(), end));
    }
}

#[test]
fn a_bomb_is_stopped_by_what_it_declares_and_an_endless_tail_is_not_followed() {
    for format in [ArchiveFormat::TarGz, ArchiveFormat::TarZst] {
        let mut sink = format.wrap(Vec::new(), None).unwrap();
        let mut bomb = header(b'0', "zeros", 64 << 20);
        bomb.seal();
        sink.write_all(&bomb.0).unwrap();
        io::copy(&mut io::repeat(0).take(64 << 20), &mut sink).unwrap();
        let bytes = sink.finish().unwrap();
        assert!(bytes.len() < 1 << 20);
        let limits = ArchiveLimits { max_bytes: 1 << 20, ..ArchiveLimits::default() };
        assert!(matches!(read_with(&bytes[..], limits).1, Err(ArchiveError::Limit { .. })));
    }
    let endless = io::Cursor::new(small()).chain(io::repeat(0));
    assert_eq!(read_with(endless, ArchiveLimits::default()).0.len(), 2);
}

#[test]
fn failures_of_the_stream_and_of_the_visitor_come_through() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::ConnectionReset, "the line is down"))
        }
    }
    for format in [ArchiveFormat::Tar, ArchiveFormat::TarGz, ArchiveFormat::TarZst] {
        let bytes = packed(format, &small());
        for cut in [0, 5, bytes.len() / 2] {
            let error = read_with(bytes[..cut].chain(Broken), ArchiveLimits::default()).1.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{format:?} {cut} {error:?}");
            let ArchiveError::Read(source) = error else { panic!("{error:?}") };
            assert_eq!(source.to_string(), "the line is down");
        }
    }
    #[derive(Debug, thiserror::Error)]
    enum Stop {
        #[error("enough")]
        Enough,
        #[error(transparent)]
        Archive(#[from] ArchiveError),
    }
    let mut seen = 0;
    let mut visit = |_: ArchivedEntry<'_>| {
        seen += 1;
        if seen == 2 { Err(Stop::Enough) } else { Ok(()) }
    };
    assert!(matches!(read_archive(&small()[..], ArchiveLimits::default(), &mut visit), Err(Stop::Enough)));
    assert_eq!(seen, 2);
    let mut visit = |_: ArchivedEntry<'_>| Ok::<(), Stop>(());
    assert!(matches!(
        read_archive(&small()[..900], ArchiveLimits::default(), &mut visit),
        Err(Stop::Archive(_))
    ));
}

#[test]
fn data_that_is_cut_off_says_so_to_who_reads_it() {
    let bytes = small();
    let mut seen = None;
    let mut visit = |entry: ArchivedEntry<'_>| {
        let mut data = Vec::new();
        seen = entry.data.read_to_end(&mut data).err();
        Ok::<(), ArchiveError>(())
    };
    let outcome = read_archive(&bytes[..514], ArchiveLimits::default(), &mut visit);
    assert!(matches!(outcome, Err(ArchiveError::CutOff { .. })));
    let error = seen.unwrap();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(error.to_string(), "the archive ends within `a`");
    assert!(error.downcast::<ArchiveError>().is_ok());
}

#[test]
fn what_is_not_finished_stays_cut_off() {
    use std::cell::RefCell;
    use std::rc::Rc;
    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [ArchiveFormat::TarGz, ArchiveFormat::TarZst] {
        let shared = Shared::default();
        let mut sink = format.wrap(shared.clone(), None).unwrap();
        sink.write_all(&small()[..1024]).unwrap();
        sink.flush().unwrap();
        drop(sink);
        assert!(read(&shared.0.borrow()).1.is_err(), "{format:?}");
    }
}
