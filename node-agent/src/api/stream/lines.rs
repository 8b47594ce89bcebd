//! Cuts a byte stream into lines of bounded length. Used by [`super::replica`].

/// A line was longer than allowed.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("a line is longer than {0} bytes")]
pub struct LineTooLong(pub usize);

/// A buffer larger than this is given back once its line was read: a large snapshot comes once.
const KEEP: usize = 16 << 10;

/// What came and is no whole line yet.
#[derive(Debug)]
pub struct Lines {
    rest: Vec<u8>,
    max: usize,
}

impl Lines {
    /// Lines of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            rest: Vec::new(),
            max,
        }
    }

    /// Takes bytes in and hands each whole line, without its end, to `each`.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), LineTooLong> {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = (&bytes[..at], &bytes[at + 1..]);
            if self.rest.len() + head.len() > self.max {
                return Err(LineTooLong(self.max));
            }
            if self.rest.is_empty() {
                each(head);
            } else {
                self.rest.extend_from_slice(head);
                each(&self.rest);
                self.rest.clear();
                self.rest.shrink_to(KEEP);
            }
            bytes = tail;
        }
        if self.rest.len() + bytes.len() > self.max {
            return Err(LineTooLong(self.max));
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn collect(chunks: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut lines = Lines::new(max);
        let mut seen = Vec::new();
        for chunk in chunks {
            lines.push(chunk, |line| seen.push(line.to_vec()))?;
        }
        Ok(seen)
    }

    #[test]
    fn a_line_without_an_end_is_refused_before_it_fills_the_memory() {
        assert!(collect(&[b"12345\n"], 5).is_ok());
        assert_eq!(collect(&[b"123", b"456"], 5), Err(LineTooLong(5)));
        assert_eq!(collect(&[b"123", b"456\n"], 5), Err(LineTooLong(5)));
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_into_chunks_does_not_matter(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(1usize..20, 0..60),
        ) {
            let whole = collect(&[&bytes], 1000).unwrap();
            let mut chunks = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                chunks.push(head);
                rest = tail;
            }
            chunks.push(rest);
            prop_assert_eq!(collect(&chunks, 1000).unwrap(), whole.clone());
            let mut ends: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            ends.pop();
            prop_assert_eq!(ends, whole);
        }
    }
}
