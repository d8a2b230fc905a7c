//! Which of the 64 fixed slots of an index over users belongs to a user.

/// How many slots an index over users has; the number is part of the stored format.
pub const SHARDS: u8 = 64;

/// The slot of a user, from 0 to 63: the 64-bit FNV-1a hash of the id's bytes, modulo 64. Part of the stored format.
pub fn shard(user: &str) -> u8 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = user.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    u8::try_from(hash % u64::from(SHARDS)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_known_users_never_change() {
        // FNV-1a of "" is 0xcbf29ce484222325, of "a" 0xaf63dc4c8601ec8c, of "foobar" 0x85944171f73967e8.
        let slots = ["", "a", "foobar"].map(shard);
        assert_eq!(slots, [0x25, 0x0c, 0x28]);
    }

    #[test]
    fn users_are_spread_over_all_slots() {
        let mut users = [0_u32; SHARDS as usize];
        for n in 0..6400 {
            users[usize::from(shard(&format!("user-{n}@example.org")))] += 1;
        }
        assert!(users.iter().all(|n| (50..200).contains(n)), "{users:?}");
    }
}
