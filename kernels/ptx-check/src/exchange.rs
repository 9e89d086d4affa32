//! What lanes of a warp tell each other.

use crate::instruction::Warp;

/// Value, `b` and `c` of a lane that takes part.
pub(crate) type Inputs = [Option<(u64, u32, u32)>; 32];

/// What `lane` gets (*shfl.sync*, *vote.sync*): a value, and whether the lane it asked was in range. `None` when it
/// asked a lane that takes no part.
pub(crate) fn exchange(what: Warp, inputs: &Inputs, lane: u32) -> Option<(u64, bool)> {
    let votes =
        || inputs.iter().enumerate().filter_map(|(lane, input)| input.map(|(a, ..)| (lane, a & 1 == 1)));
    let (own, b, c) = inputs[lane as usize]?;
    let (segment, clamp, b) = (c >> 8 & 31, c & 31, b & 31);
    let most = lane & segment | clamp & !segment;
    let (source, inside) = match what {
        Warp::VoteAll => return Some((votes().all(|(_, vote)| vote).into(), true)),
        Warp::VoteAny => return Some((votes().any(|(_, vote)| vote).into(), true)),
        Warp::VoteBallot => {
            let ballot = votes().fold(0, |all, (lane, vote)| all | u64::from(vote) << lane);
            return Some((ballot, true));
        }
        Warp::Sync => return Some((own, true)),
        Warp::ShuffleUp => (lane.wrapping_sub(b), lane as i32 - b as i32 >= most as i32),
        Warp::ShuffleDown => (lane + b, lane + b <= most),
        Warp::ShuffleXor => (lane ^ b, lane ^ b <= most),
        Warp::ShuffleIndex => {
            let source = lane & segment | b & !segment;
            (source, source <= most)
        }
    };
    let source = if inside { source } else { lane };
    inputs[source as usize & 31].map(|(value, ..)| (value & 0xffff_ffff, inside))
}
