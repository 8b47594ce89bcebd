//! Netlink attributes: a writer, and a reader that takes any bytes. Used by [`super::batch`], [`super::expression`] and
//! [`super::drift`].

/// Bit of an attribute's type that says that it holds attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's type that are its type.
const TYPE: u16 = 0x3fff;
/// Bytes of an attribute's header: length and type.
const HEADER: usize = 4;

/// Attributes one after the other, each padded to four bytes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds one with these bytes; what a length of sixteen bits cannot say is cut, which no caller comes near.
    pub fn raw(mut self, kind: u16, bytes: &[u8]) -> Self {
        self.push(kind, bytes);
        self
    }

    /// Adds a text that ends with a zero byte.
    pub fn text(mut self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.push(kind, &bytes);
        self
    }

    /// Adds a number of 32 bits in network order, as all of nf_tables are.
    pub fn number(mut self, kind: u16, number: u32) -> Self {
        self.push(kind, &number.to_be_bytes());
        self
    }

    /// Adds a number of 64 bits in network order.
    pub fn long(mut self, kind: u16, number: u64) -> Self {
        self.push(kind, &number.to_be_bytes());
        self
    }

    /// Adds attributes within one.
    pub fn nested(mut self, kind: u16, inner: &Self) -> Self {
        self.push(kind | NESTED, &inner.0);
        self
    }

    fn push(&mut self, kind: u16, bytes: &[u8]) {
        let length = u16::try_from(HEADER + bytes.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0
            .extend(&bytes[..usize::from(length).saturating_sub(HEADER)]);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// The attributes in `bytes`, as types and contents; it ends at the first that does not fit.
pub fn read(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]);
        let content = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & TYPE, content))
    })
}

/// The first attribute of a type.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    read(bytes)
        .find(|(this, _)| *this == kind)
        .map(|(_, content)| content)
}

/// The text of the first attribute of a type, up to its zero byte.
pub fn find_text(bytes: &[u8], kind: u16) -> Option<&str> {
    let text = find(bytes, kind)?.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(text).ok()
}

/// The number of 32 bits of the first attribute of a type.
pub fn find_number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

/// The number of 64 bits of the first attribute of a type.
pub fn find_long(bytes: &[u8], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_reads_back() {
        let inner = Attributes::new().number(3, 7).text(4, "abcd");
        let all = Attributes::new()
            .text(1, "x")
            .nested(2, &inner)
            .long(5, u64::MAX);
        assert_eq!(find_text(all.bytes(), 1), Some("x"));
        let inner = find(all.bytes(), 2).unwrap();
        assert_eq!(find_number(inner, 3), Some(7));
        assert_eq!(find_text(inner, 4), Some("abcd"));
        assert_eq!(find_long(all.bytes(), 5), Some(u64::MAX));
        assert_eq!(find(all.bytes(), 6), None);
        assert_eq!(all.bytes().len() % 4, 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = read(&bytes).map(|(_, content)| content.len() + HEADER).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
