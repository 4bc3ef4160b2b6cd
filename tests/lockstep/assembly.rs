//! Programs written by hand: instructions with labels.
#![allow(dead_code, reason = "each test program uses its part of this")]

use std::collections::HashMap;

use frontend::Opcode;

use crate::harness::asm;

pub(crate) const S0: u8 = 8;
pub(crate) const S1: u8 = 9;
pub(crate) const S2: u8 = 18;
pub(crate) const S3: u8 = 19;
pub(crate) const S4: u8 = 20;
pub(crate) const S5: u8 = 21;
pub(crate) const T3: u8 = 28;
pub(crate) const T4: u8 = 29;
pub(crate) const T5: u8 = 30;

/// A program under construction.
#[derive(Default)]
pub(crate) struct Assembly {
    words: Vec<u32>,
    labels: HashMap<&'static str, usize>,
    branches: Vec<(usize, Opcode, u8, u8, &'static str)>,
    /// Where the address of a label is made, and in which register.
    addresses: Vec<(usize, u8, &'static str)>,
}

impl Assembly {
    pub(crate) fn label(&mut self, name: &'static str) {
        let old = self.labels.insert(name, self.words.len());
        assert!(old.is_none(), "{name} is there twice");
    }

    pub(crate) fn add(&mut self, words: &[u32]) {
        self.words.extend_from_slice(words);
    }

    pub(crate) fn li(&mut self, rd: u8, value: u64) {
        self.add(&asm::li_64(rd, value as i64));
    }

    /// `op a, b, label`
    pub(crate) fn branch(&mut self, op: Opcode, a: u8, b: u8, to: &'static str) {
        self.branches.push((self.words.len(), op, a, b, to));
        self.words.push(0);
    }

    /// `la rd, label`
    pub(crate) fn address_of(&mut self, rd: u8, label: &'static str) {
        self.addresses.push((self.words.len(), rd, label));
        self.words.extend([0, 0]);
    }

    /// The labels with their distances in bytes from the start.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.labels.iter().map(|(name, index)| (*name, *index as u64 * 4))
    }

    /// `j label`
    pub(crate) fn jump(&mut self, to: &'static str) {
        self.branch(Opcode::Jal, 0, 0, to);
    }

    /// Ends the machine with a code, which is not 0.
    pub(crate) fn finish(&mut self, code: u64) {
        const FINISHER: i64 = 0x10_0000;
        const FAIL: u64 = 0x3333;
        self.add(&[asm::lui(asm::T0, FINISHER)]);
        self.li(asm::T1, code << 16 | FAIL);
        self.add(&[asm::s(Opcode::Sw, asm::T1, asm::T0, 0), asm::j(0)]);
    }

    pub(crate) fn words(mut self) -> Vec<u32> {
        for (index, op, a, b, to) in self.branches {
            let distance = (self.labels[to] as i64 - index as i64) * 4;
            self.words[index] = match op {
                Opcode::Jal => asm::i(op, a, 0, distance),
                _ => asm::s(op, b, a, distance),
            };
        }
        for (index, rd, label) in self.addresses {
            // auipc, addi: the distance from the first of them.
            let distance = (self.labels[label] as i64 - index as i64) * 4;
            assert!(distance.abs() < 2048, "{label} is too far away");
            self.words[index] = asm::i(Opcode::Auipc, rd, 0, 0);
            self.words[index + 1] = asm::i(Opcode::Addi, rd, rd, distance);
        }
        self.words
    }
}
