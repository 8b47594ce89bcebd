//! Runs a filter on a call, as the kernel would.

/// An instruction, laid out as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// The call a filter sees.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    /// The 32 bits at an offset of `struct seccomp_data`, on a little-endian machine.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            // The address of the instruction, which no profile asks for.
            8 | 12 => 0,
            16..=60 if offset.is_multiple_of(4) => {
                let arg = self.args[((offset - 16) / 8) as usize];
                let half = if offset.is_multiple_of(8) {
                    arg
                } else {
                    arg >> 32
                };
                (half & 0xffff_ffff) as u32
            }
            _ => panic!("no field at {offset}"),
        }
    }
}

/// What the filter returns: an action in the upper half, its data in the lower.
pub fn run(filter: &[Instruction], call: &Call) -> u32 {
    let (mut accumulator, mut memory, mut at) = (0_u32, [0_u32; 16], 0_usize);
    loop {
        let Instruction { code, jt, jf, k } = filter[at];
        at += 1;
        let jump = |condition: bool| usize::from(if condition { jt } else { jf });
        match code {
            // Loads and stores.
            0x20 => accumulator = call.word(k),
            0x00 => accumulator = k,
            0x60 => accumulator = memory[k as usize],
            0x02 => memory[k as usize] = accumulator,
            // Arithmetic.
            0x54 => accumulator &= k,
            // Jumps.
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x45 => at += jump(accumulator & k != 0),
            0x06 => return k,
            _ => panic!("instruction {} is unknown: {code:#x}", at - 1),
        }
    }
}

#[test]
fn a_filter_by_hand_gives_what_it_says() {
    let instruction = |code, jt, jf, k| Instruction { code, jt, jf, k };
    // The upper half of argument 1 must be 7, and bit 2 of the lower one set.
    let filter = [
        instruction(0x20, 0, 0, 28),
        instruction(0x15, 0, 3, 7),
        instruction(0x20, 0, 0, 24),
        instruction(0x45, 0, 1, 4),
        instruction(0x06, 0, 0, 1),
        instruction(0x06, 0, 0, 2),
    ];
    let call = |arg| Call {
        number: 0,
        arch: 0,
        args: [0, arg, 0, 0, 0, 0],
    };
    assert_eq!(run(&filter, &call(7 << 32 | 4)), 1);
    assert_eq!(run(&filter, &call(7 << 32 | 3)), 2);
    assert_eq!(run(&filter, &call(4)), 2);
}
