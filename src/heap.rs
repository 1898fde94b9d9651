//! The heap gives back what a snapshot, an audit or a merge has needed.

/// Bytes of an allocation that is a mapping of its own.
#[cfg(target_env = "gnu")]
const MAPPED: std::ffi::c_int = 1 << 20;

/// Gives large buffers back to the system when they are freed. The GNU C library does so at first only:
/// it takes each large buffer that is freed for one that comes again, from then on cuts such ones out of
/// the heap of whichever thread asks, and each of these heaps grows to what its thread needed at most.
///
/// See `mallopt(3)`, `M_MMAP_THRESHOLD`.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library has no other way to be told")]
pub fn give_back() {
    // SAFETY: it takes two numbers, and sets one in the allocator under its own lock. That it refuses changes
    // nothing.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED) };
}

/// Gives large buffers back to the system when they are freed, as other allocators do unasked.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use std::hint::black_box;

    use super::*;

    /// Whether anything is mapped at an address of this process.
    fn is_mapped(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| {
            let (from, rest) = line.split_once('-').unwrap();
            let to = rest.split(' ').next().unwrap();
            let place = |hex| usize::from_str_radix(hex, 16).unwrap();
            (place(from)..place(to)).contains(&address)
        })
    }

    #[test]
    fn large_buffers_are_given_back_also_after_larger_ones() {
        give_back();
        drop(black_box(vec![1_u8; 8 << 20]));
        let buffers: [Vec<u8>; 4] = std::array::from_fn(|_| black_box(vec![1; 2 << 20]));
        let places = buffers.map(|buffer| buffer.as_ptr().addr());
        // Another thread may have mapped something into some of the holes.
        assert!(places.iter().any(|place| !is_mapped(*place)), "all of them are kept");
    }
}
