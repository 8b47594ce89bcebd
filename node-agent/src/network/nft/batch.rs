//! Changes that the kernel makes all at once or not at all. Built by [`super::table`], carried out by [`super::socket`].
//!
//! Numbers of messages and attributes are those of the kernel's `linux/netfilter/nf_tables.h`.

use super::attribute::Attributes;
use super::expression::Rule;
use super::socket::{ACKNOWLEDGE, REQUEST, message_kind, write};

/// First and last message of a batch.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// The subsystem, as the first message names it.
const SUBSYSTEM: u16 = 10;
/// Family of tables for both families of addresses (`NFPROTO_INET`).
pub const INET: u8 = 1;
/// Flag: make it where it is not there.
const CREATE: u16 = 0x400;
/// Flag: it goes behind the others.
const APPEND: u16 = 0x800;

/// Messages.
pub mod message {
    /// Make a table.
    pub const NEW_TABLE: u16 = 0;
    /// Remove a table.
    pub const DELETE_TABLE: u16 = 2;
    /// Make a chain.
    pub const NEW_CHAIN: u16 = 3;
    /// Tell of chains.
    pub const GET_CHAIN: u16 = 4;
    /// Remove a chain.
    pub const DELETE_CHAIN: u16 = 5;
    /// Make a rule.
    pub const NEW_RULE: u16 = 6;
    /// Tell of rules.
    pub const GET_RULE: u16 = 7;
    /// Remove a rule.
    pub const DELETE_RULE: u16 = 8;
    /// Make a set.
    pub const NEW_SET: u16 = 9;
    /// Tell of sets.
    pub const GET_SET: u16 = 10;
    /// Put elements into a set.
    pub const NEW_ELEMENTS: u16 = 12;
    /// Tell of a set's elements.
    pub const GET_ELEMENTS: u16 = 13;
    /// Take elements out of a set.
    pub const DELETE_ELEMENTS: u16 = 14;
    /// Tell of the generation of all tables.
    pub const GET_GENERATION: u16 = 16;
    /// Make an object.
    pub const NEW_OBJECT: u16 = 18;
    /// Tell of objects.
    pub const GET_OBJECT: u16 = 19;
}

/// Elements of one message: all of them share an attribute, whose length has sixteen bits.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// Where a chain hooks in.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// Number of the hook.
    pub hook: u32,
    /// Its place among the chains there.
    pub priority: i32,
    /// Whether what no rule decides is dropped.
    pub drops: bool,
}

/// Numbers of hooks.
pub mod hook {
    /// Everything that comes in.
    pub const PREROUTING: u32 = 0;
    /// What comes in for the machine itself.
    pub const INPUT: u32 = 1;
    /// What the machine itself sends.
    pub const OUTPUT: u32 = 3;
    /// Everything that goes out.
    pub const POSTROUTING: u32 = 4;
}

/// What the keys of a set are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetKind {
    /// Single keys that vanish with time and that rules can add.
    Timed,
    /// Ranges.
    Ranges,
}

/// A field of a set's keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    /// Number of its type in the `nft` program, which prints by it; the kernel looks at the width alone.
    pub kind: u32,
    /// Width in bytes.
    pub width: u32,
}

impl Field {
    /// A transport protocol.
    pub const PROTOCOL: Self = Self { kind: 12, width: 1 };
    /// A port.
    pub const PORT: Self = Self { kind: 13, width: 2 };

    /// An address of this many bytes.
    pub const fn address(width: u32) -> Self {
        let kind = if width == 4 { 7 } else { 8 };
        Self { kind, width }
    }
}

/// A set: its key is a concatenation of fields, each padded to four bytes.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: SetKind,
    /// The fields.
    pub fields: Vec<Field>,
    /// Longest number of elements that rules may add.
    pub size: Option<u32>,
}

/// An element of a set.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// The key, or the first of a range, each field padded to four bytes.
    pub first: Vec<u8>,
    /// The last of a range.
    pub last: Option<Vec<u8>>,
}

/// Changes of one table.
#[derive(Clone, Debug)]
pub struct Batch {
    table: String,
    messages: Vec<(u16, u16, Attributes)>,
}

impl Batch {
    /// None yet, of this table.
    pub fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            messages: Vec::new(),
        }
    }

    /// Makes the table where it is not there.
    pub fn make_table(&mut self) {
        let content = Attributes::new().text(1, &self.table);
        self.push(message::NEW_TABLE, CREATE, content);
    }

    /// Removes the table, whether it is there or not.
    pub fn remove_table(&mut self) {
        self.make_table();
        let content = Attributes::new().text(1, &self.table);
        self.push(message::DELETE_TABLE, 0, content);
    }

    /// Makes a chain; without a hook one that is only jumped to, or only there for its name.
    pub fn make_chain(&mut self, name: &str, hook: Option<&Hook>) {
        let mut content = Attributes::new().text(1, &self.table).text(3, name);
        if let Some(hook) = hook {
            let place = Attributes::new()
                .number(1, hook.hook)
                .raw(2, &hook.priority.to_be_bytes());
            content = content
                .nested(4, &place)
                .number(5, u32::from(!hook.drops))
                .text(7, hook.kind);
        }
        self.push(message::NEW_CHAIN, CREATE, content);
    }

    /// Removes a chain that has no rules.
    pub fn remove_chain(&mut self, name: &str) {
        let content = Attributes::new().text(1, &self.table).text(3, name);
        self.push(message::DELETE_CHAIN, 0, content);
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        let content = Attributes::new().text(1, &self.table).text(2, name);
        self.push(message::DELETE_RULE, 0, content);
    }

    /// Adds rules to a chain, behind those that are there.
    pub fn add_rules(&mut self, chain: &str, rules: &[Rule]) {
        for rule in rules {
            let content = Attributes::new()
                .text(1, &self.table)
                .text(2, chain)
                .nested(4, &rule.encode());
            self.push(message::NEW_RULE, CREATE | APPEND, content);
        }
    }

    /// Makes a counter with a name.
    pub fn make_counter(&mut self, name: &str) {
        const COUNTER: u32 = 1;
        let content = Attributes::new()
            .text(1, &self.table)
            .text(2, name)
            .number(3, COUNTER)
            .nested(4, &Attributes::new().long(1, 0).long(2, 0));
        self.push(message::NEW_OBJECT, CREATE, content);
    }

    /// Makes a set.
    pub fn make_set(&mut self, set: &Set, number: u32) {
        const INTERVAL: u32 = 4;
        const TIMEOUT: u32 = 0x10;
        const DYNAMIC: u32 = 0x20;
        const CONCATENATION: u32 = 0x80;
        let flags = match set.kind {
            SetKind::Timed => CONCATENATION | TIMEOUT | DYNAMIC,
            SetKind::Ranges => CONCATENATION | INTERVAL,
        };
        let widths = set.fields.iter().map(|field| field.width);
        let padded: u32 = widths.clone().map(|width| width.next_multiple_of(4)).sum();
        let fields = widths.fold(Attributes::new(), |list, width| {
            list.nested(1, &Attributes::new().number(1, width))
        });
        // Six bits a field.
        let kind = set
            .fields
            .iter()
            .fold(0, |kind, field| kind << 6 | field.kind);
        let mut description = Attributes::new();
        if let Some(size) = set.size {
            description = description.number(1, size);
        }
        let content = Attributes::new()
            .text(1, &self.table)
            .text(2, &set.name)
            .number(3, flags)
            .number(4, kind)
            .number(5, padded)
            .nested(9, &description.nested(2, &fields))
            .number(10, number);
        self.push(message::NEW_SET, CREATE, content);
    }

    /// Takes every element out of a set.
    pub fn flush_set(&mut self, set: &str) {
        let content = Attributes::new().text(1, &self.table).text(2, set);
        self.push(message::DELETE_ELEMENTS, 0, content);
    }

    /// Puts elements into a set; those of a timed one for so many milliseconds. One that is there stays as it is.
    pub fn add(&mut self, set: &str, elements: &[(Key, Option<u64>)]) {
        self.elements(message::NEW_ELEMENTS, CREATE, set, elements);
    }

    /// Takes elements out of a set, whether they are there or not.
    pub fn remove(&mut self, set: &str, keys: &[Key]) {
        let elements: Vec<_> = keys.iter().map(|key| (key.clone(), None)).collect();
        // Removal of one that is not there fails, and with it the batch.
        self.elements(message::NEW_ELEMENTS, CREATE, set, &elements);
        self.elements(message::DELETE_ELEMENTS, 0, set, &elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[(Key, Option<u64>)]) {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            let list = some.iter().fold(Attributes::new(), |list, (key, time)| {
                let value = |bytes: &[u8]| Attributes::new().raw(1, bytes);
                let mut element = Attributes::new().nested(1, &value(&key.first));
                if let Some(last) = &key.last {
                    element = element.nested(10, &value(last));
                }
                if let Some(milliseconds) = time {
                    element = element.long(4, *milliseconds);
                }
                list.nested(1, &element)
            });
            let content = Attributes::new()
                .text(1, &self.table)
                .text(2, set)
                .nested(3, &list);
            self.push(kind, flags, content);
        }
    }

    fn push(&mut self, kind: u16, flags: u16, content: Attributes) {
        self.messages.push((kind, flags, content));
    }

    /// The bytes, and the numbers of the first and the last message, where `before` was the last one so far.
    pub(super) fn encode(&self, before: u32) -> (Vec<u8>, u32, u32) {
        let mut bytes = Vec::new();
        let first = before.wrapping_add(1);
        let mut number = first;
        write(&mut bytes, BEGIN, REQUEST, number, (0, SUBSYSTEM), &[]);
        for (at, (kind, flags, content)) in self.messages.iter().enumerate() {
            number = number.wrapping_add(1);
            let last = at + 1 == self.messages.len();
            let flags = REQUEST | flags | if last { ACKNOWLEDGE } else { 0 };
            let content = content.bytes();
            write(
                &mut bytes,
                message_kind(*kind),
                flags,
                number,
                (INET, 0),
                content,
            );
        }
        number = number.wrapping_add(1);
        write(&mut bytes, END, REQUEST, number, (0, SUBSYSTEM), &[]);
        (bytes, first, number)
    }

    /// Number of the message that the kernel acknowledges, where the first one is `first`; none where there is nothing to do.
    pub(super) fn last(&self, first: u32) -> Option<u32> {
        let count = u32::try_from(self.messages.len()).ok()?;
        (count > 0).then(|| first.wrapping_add(count))
    }
}
