//! Frames of the WAL by number, read in windows.

use std::io;
use std::os::unix::fs::FileExt;

use genesis_wal::frame::{FrameHeader, frame_len, frame_offset};
use genesis_wal::header::Salts;
use genesis_wal::page::PageSize;
use genesis_wal::scan::FrameRef;

use super::{Source, SourceError};

/// Bytes read at once, at most.
const WINDOW: usize = 4 << 20;

/// The memory that frames are read into.
#[derive(Debug, Default)]
pub struct FrameBuffers {
    window: Vec<u8>,
    single: Vec<u8>,
}

/// Reads frames up to a committed one. What it reads is only as good as the scan that proved it.
#[derive(Debug)]
pub struct FrameReader<'a> {
    source: &'a Source,
    page_size: PageSize,
    max_frame: u32,
    /// The number of the first frame in the window.
    first: u32,
    /// Bytes in the window.
    filled: usize,
    buffers: FrameBuffers,
}

impl<'a> FrameReader<'a> {
    /// A reader of frames 1 to `max_frame`.
    #[must_use]
    pub fn new(source: &'a Source, max_frame: u32) -> Self {
        Self::reusing(FrameBuffers::default(), source, max_frame)
    }

    /// The same, reading into memory that is there already. To be used again it is taken back with
    /// [`into_buffers`](Self::into_buffers).
    #[must_use]
    pub fn reusing(buffers: FrameBuffers, source: &'a Source, max_frame: u32) -> Self {
        let page_size = source.page_size();
        Self { source, page_size, max_frame, first: 1, filled: 0, buffers }
    }

    /// The memory that was read into.
    #[must_use]
    pub fn into_buffers(self) -> FrameBuffers {
        self.buffers
    }

    /// The database whose WAL this is.
    #[must_use]
    pub fn source(&self) -> &'a Source {
        self.source
    }

    /// Whole frames from `frame` on, as many as a window holds; empty where the file ends before
    /// that frame does.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn frames_from(&mut self, frame: u32) -> Result<&[u8], SourceError> {
        if self.at(frame).is_none() {
            self.read_from(frame)?;
        }
        Ok(self.at(frame).unwrap_or_default())
    }

    /// Reads the frames from `first` to `last`, where they fit a window, so that [`held`](Self::held)
    /// has their pages.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn hold(&mut self, first: u32, last: u32) -> Result<(), SourceError> {
        if self.at(first).is_none() || self.at(last).is_none() {
            self.read_from(first)?;
        }
        Ok(())
    }

    fn read_from(&mut self, frame: u32) -> Result<(), SourceError> {
        let len = frame_len(self.page_size);
        let left = self.max_frame.saturating_sub(frame.saturating_sub(1)) as usize;
        let wanted = left.min((WINDOW / len).max(1)) * len;
        let window = &mut self.buffers.window;
        if window.len() < wanted {
            window.resize(wanted, 0);
        }
        self.filled = 0;
        let offset = frame_offset(self.page_size, frame);
        let into = window.get_mut(..wanted).unwrap_or_default();
        let filled = read_full(self.source, into, offset)?;
        (self.first, self.filled) = (frame, filled - filled % len);
        Ok(())
    }

    /// The page in `frame`; `None` where the file ends before that frame does. Outside of what was read
    /// last by [`frames_from`](Self::frames_from) or [`hold`](Self::hold), only this frame is read.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn page(&mut self, frame: u32) -> Result<Option<&[u8]>, SourceError> {
        Ok(self.frame(frame)?.and_then(|bytes| bytes.get(FrameHeader::LEN..)))
    }

    /// The page that was seen in a frame of the WAL with these salts; `None` also where the frame is not
    /// that any more, by its header.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn image(&mut self, image: FrameRef, salts: Salts) -> Result<Option<&[u8]>, SourceError> {
        let bytes = self.frame(image.frame)?;
        let bytes = bytes.filter(|bytes| {
            FrameHeader::decode(bytes).is_ok_and(|header| {
                header.page == image.page.get() && (header.salts == salts || header.is_unsummed())
            })
        });
        Ok(bytes.and_then(|bytes| bytes.get(FrameHeader::LEN..)))
    }

    fn frame(&mut self, frame: u32) -> Result<Option<&[u8]>, SourceError> {
        let len = frame_len(self.page_size);
        if self.at(frame).is_some() {
            return Ok(self.at(frame).and_then(|rest| rest.get(..len)));
        }
        self.buffers.single.resize(len, 0);
        let offset = frame_offset(self.page_size, frame);
        let filled = read_full(self.source, &mut self.buffers.single, offset)?;
        Ok((filled == len).then_some(&*self.buffers.single))
    }

    /// The page in `frame`, where that is among the frames that were read last.
    #[must_use]
    pub fn held(&self, frame: u32) -> Option<&[u8]> {
        self.at(frame)?.get(FrameHeader::LEN..frame_len(self.page_size))
    }

    fn at(&self, frame: u32) -> Option<&[u8]> {
        let ahead = frame.checked_sub(self.first)? as usize;
        let window = self.buffers.window.get(..self.filled)?;
        let rest = window.get(ahead.checked_mul(frame_len(self.page_size))?..)?;
        (!rest.is_empty()).then_some(rest)
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(source: &Source, buffer: &mut [u8], offset: u64) -> Result<usize, SourceError> {
    let failed = |error| SourceError::Io { action: "read", path: source.wal_path(), source: error };
    read_at_most(source.wal(), buffer, offset).map_err(failed)
}

/// Reads from `offset` until the buffer is full or the file ends; the bytes read.
pub(super) fn read_at_most(
    file: &impl FileExt,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use genesis_wal::page::PageNumber;
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_frame_that_holds_something_else_by_now_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("app.db");
        let application = Connection::open(&path).unwrap();
        let create = "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1);";
        application.execute_batch(create).unwrap();
        let (source, held) = Source::open(&path, false).unwrap();
        let index = held.index.header;
        let mut frames = FrameReader::new(&source, index.max_frame);
        let page = |number| PageNumber::new(number).unwrap();
        // The table's only page.
        let image = FrameRef { page: page(2), frame: index.max_frame };
        let other_page = FrameRef { page: page(1), ..image };
        for is_held in [false, true] {
            if is_held {
                frames.hold(1, index.max_frame).unwrap();
            }
            assert_eq!(frames.held(image.frame).is_some(), is_held);
            assert!(frames.image(image, index.salts).unwrap().is_some());
            assert_eq!(frames.image(other_page, index.salts).unwrap(), None);
            assert_eq!(frames.image(image, Salts([9; 8])).unwrap(), None);
        }
    }
}
