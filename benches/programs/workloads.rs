//! Small programs as compilers make them, for the speed of whole guests. A round is short, also on the interpreter: the shortest
//! of many is to be one in which the host did nothing else.

use core::hint::black_box;

static mut MEMORY: [u64; 1 << 13] = [0; 1 << 13];

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn memory() -> &'static mut [u64] {
    // SAFETY: one benchmark runs at a time, and has the memory until it returns.
    unsafe { &mut *(&raw mut MEMORY) }
}

/// The primes below 8192, by the sieve of Eratosthenes: stores with growing strides.
pub fn sieve(rounds: u64) {
    for _ in 0..rounds {
        let composite = memory();
        composite.fill(0);
        let mut count = 0;
        for number in 2..composite.len() {
            if composite[number] == 0 {
                count += 1;
                (number * number..composite.len())
                    .step_by(number)
                    .for_each(|multiple| composite[multiple] = 1);
            }
        }
        assert!(black_box(count) == 1028);
    }
}

/// Quicksort of 1024 random numbers: recursion, and branches that nobody can predict.
pub fn sort(rounds: u64) {
    fn quicksort(numbers: &mut [u64]) {
        if numbers.len() < 2 {
            return;
        }
        let (pivot, mut middle) = (numbers[numbers.len() / 2], 0);
        numbers.swap(0, numbers.len() / 2);
        for index in 1..numbers.len() {
            if numbers[index] < pivot {
                middle += 1;
                numbers.swap(index, middle);
            }
        }
        numbers.swap(0, middle);
        let (low, high) = numbers.split_at_mut(middle);
        quicksort(low);
        quicksort(&mut high[1..]);
    }
    for _ in 0..rounds {
        let numbers = &mut memory()[..1024];
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        numbers.fill_with(|| random.next());
        quicksort(numbers);
        assert!(black_box(numbers.is_sorted()));
    }
}

/// The product of two matrices of 24 by 24 doubles.
pub fn matrix(rounds: u64) {
    const N: usize = 24;
    static mut A: [[f64; N]; N] = [[1.5; N]; N];
    static mut B: [[f64; N]; N] = [[0.25; N]; N];
    static mut C: [[f64; N]; N] = [[0.0; N]; N];
    // SAFETY: as in `memory`.
    let (a, b, c) = unsafe { (&*(&raw const A), &*(&raw const B), &mut *(&raw mut C)) };
    for _ in 0..rounds {
        let (a, b) = (black_box(a), black_box(b));
        for i in 0..N {
            for j in 0..N {
                c[i][j] = (0..N).map(|k| a[i][k] * b[k][j]).sum();
            }
        }
        assert!(black_box(c[N - 1][N - 1]) == 9.0);
    }
}

/// SHA-256 of 1024 bytes (FIPS 180-4): rotations, additions and table look-ups.
pub fn hash(rounds: u64) {
    const PRIMES: usize = 64;
    /// The first 32 bits of the fractional parts of the cube roots of the first primes, by Newton's method in integers.
    const K: [u32; PRIMES] = {
        let (mut k, mut count, mut number) = ([0; PRIMES], 0, 2_u128);
        while count < PRIMES {
            let (mut divisor, mut prime) = (2, true);
            while divisor * divisor <= number {
                prime &= number % divisor != 0;
                divisor += 1;
            }
            if prime {
                // floor(cbrt(number) * 2^32) by bisection.
                let (mut low, mut high) = (0_u128, 8 << 32);
                while high - low > 1 {
                    let middle = (low + high) / 2;
                    if middle * middle * middle <= number << 96 { low = middle } else { high = middle }
                }
                k[count] = low as u32;
                count += 1;
            }
            number += 1;
        }
        k
    };
    const START: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    for round in 0..rounds {
        let mut state = START;
        for block in 0..16_u32 {
            let mut w = [0_u32; 64];
            for (index, word) in w[..16].iter_mut().enumerate() {
                *word = black_box(block ^ index as u32 ^ round as u32);
            }
            for t in 16..64 {
                let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ w[t - 15] >> 3;
                let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ w[t - 2] >> 10;
                w[t] = w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1);
            }
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
            for t in 0..64 {
                let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
                let choice = e & f ^ !e & g;
                let t1 = h.wrapping_add(s1).wrapping_add(choice).wrapping_add(K[t]).wrapping_add(w[t]);
                let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
                let majority = a & b ^ a & c ^ b & c;
                (h, g, f, e) = (g, f, e, d.wrapping_add(t1));
                (d, c, b, a) = (c, b, a, t1.wrapping_add(s0.wrapping_add(majority)));
            }
            for (word, add) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
                *word = word.wrapping_add(add);
            }
        }
        black_box(state);
    }
}

/// An interpreter of a small stack machine that counts down from 1024: an indirect jump for each of its instructions.
pub fn interpreter(rounds: u64) {
    type Step = fn(&mut Machine);
    struct Machine {
        pc: usize,
        top: usize,
        stack: [u64; 16],
        steps: u64,
    }
    fn push_one(m: &mut Machine) {
        m.top += 1;
        m.stack[m.top & 15] = 1;
        m.pc += 1;
    }
    fn subtract(m: &mut Machine) {
        let b = m.stack[m.top & 15];
        m.top -= 1;
        m.stack[m.top & 15] = m.stack[m.top & 15].wrapping_sub(b);
        m.pc += 1;
    }
    fn again_unless_zero(m: &mut Machine) {
        m.pc = if m.stack[m.top & 15] == 0 { 3 } else { 0 };
    }
    fn stop(_: &mut Machine) {}
    const PROGRAM: [Step; 4] = [push_one, subtract, again_unless_zero, stop];
    for _ in 0..rounds {
        let program = black_box(&PROGRAM);
        let mut machine = Machine { pc: 0, top: 1, stack: [1024; 16], steps: 0 };
        while machine.pc != 3 {
            program[machine.pc & 3](&mut machine);
            machine.steps += 1;
        }
        assert!(black_box(machine.steps) == 3 * 1024);
    }
}
