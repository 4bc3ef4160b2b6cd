//! Integer operations whose definition takes more than an operator.

pub(super) fn zext_w(a: u64) -> u64 {
    u64::from(a as u32)
}

pub(super) fn sext_w(a: u32) -> u64 {
    a as i32 as u64
}

pub(super) fn sll(a: u64, b: u64) -> u64 {
    a << (b & 63)
}

pub(super) fn srl(a: u64, b: u64) -> u64 {
    a >> (b & 63)
}

pub(super) fn sra(a: u64, b: u64) -> u64 {
    (a as i64 >> (b & 63)) as u64
}

pub(super) fn slt(a: u64, b: u64) -> u64 {
    u64::from((a as i64) < b as i64)
}

pub(super) fn sltu(a: u64, b: u64) -> u64 {
    u64::from(a < b)
}

pub(super) fn addw(a: u64, b: u64) -> u64 {
    sext_w((a as u32).wrapping_add(b as u32))
}

pub(super) fn subw(a: u64, b: u64) -> u64 {
    sext_w((a as u32).wrapping_sub(b as u32))
}

pub(super) fn sllw(a: u64, b: u64) -> u64 {
    sext_w((a as u32) << (b & 31))
}

pub(super) fn srlw(a: u64, b: u64) -> u64 {
    sext_w(a as u32 >> (b & 31))
}

pub(super) fn sraw(a: u64, b: u64) -> u64 {
    (a as i32 >> (b & 31)) as u64
}

pub(super) fn mulw(a: u64, b: u64) -> u64 {
    sext_w((a as u32).wrapping_mul(b as u32))
}

pub(super) fn mulh(a: u64, b: u64) -> u64 {
    ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
}

pub(super) fn mulhsu(a: u64, b: u64) -> u64 {
    ((i128::from(a as i64) * i128::from(b)) >> 64) as u64
}

pub(super) fn mulhu(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

pub(super) fn div(a: u64, b: u64) -> u64 {
    if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 }
}

pub(super) fn divu(a: u64, b: u64) -> u64 {
    a.checked_div(b).unwrap_or(u64::MAX)
}

pub(super) fn rem(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 }
}

pub(super) fn remu(a: u64, b: u64) -> u64 {
    a.checked_rem(b).unwrap_or(a)
}

pub(super) fn divw(a: u64, b: u64) -> u64 {
    let (a, b) = (a as i32, b as i32);
    if b == 0 { u64::MAX } else { a.wrapping_div(b) as u64 }
}

pub(super) fn divuw(a: u64, b: u64) -> u64 {
    sext_w((a as u32).checked_div(b as u32).unwrap_or(u32::MAX))
}

pub(super) fn remw(a: u64, b: u64) -> u64 {
    let (a, b) = (a as i32, b as i32);
    if b == 0 { a as u64 } else { a.wrapping_rem(b) as u64 }
}

pub(super) fn remuw(a: u64, b: u64) -> u64 {
    sext_w((a as u32).checked_rem(b as u32).unwrap_or(a as u32))
}

pub(super) fn ror(a: u64, b: u64) -> u64 {
    a.rotate_right(b as u32 & 63)
}

pub(super) fn rorw(a: u64, b: u64) -> u64 {
    sext_w((a as u32).rotate_right(b as u32 & 31))
}

pub(super) fn bclr(a: u64, b: u64) -> u64 {
    a & !(1 << (b & 63))
}

pub(super) fn bext(a: u64, b: u64) -> u64 {
    a >> (b & 63) & 1
}

pub(super) fn binv(a: u64, b: u64) -> u64 {
    a ^ 1 << (b & 63)
}

pub(super) fn bset(a: u64, b: u64) -> u64 {
    a | 1 << (b & 63)
}

/// The carry-less product.
pub(super) fn clmul(a: u64, b: u64) -> u128 {
    (0..64).filter(|bit| b >> bit & 1 == 1).fold(0, |product, bit| product ^ u128::from(a) << bit)
}

/// The high bit of each byte of `some` says whether the byte of `a` has any bit set; each is then spread over its byte.
pub(super) fn orc_b(a: u64) -> u64 {
    const LOW_SEVEN: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let some = (((a & LOW_SEVEN) + LOW_SEVEN) | a) & !LOW_SEVEN;
    (some >> 7) * 0xff
}
