// How a token is chosen: what the host says of each sequence, and what the kernels answer.
#pragma once
#include "common.cuh"

constexpr u32 RECENT = 256; // most tokens that the repetition penalty looks at

// One for each sequence of the step.
struct __align__(8) Choice {
    float temperature;  // 0 takes the likeliest
    float top_p;        // over 0, up to 1
    float penalty;      // of repetition; 1 is off
    u32 recent;         // tokens in this sequence's list: different ones, and none that is spared
    u64 seed;
    u64 position;       // tokens chosen so far
    u32 step;           // number of this step
    u32 choice;         // which of a request's answers: each draws other numbers
};

// One for each sequence of the step.
struct Chosen {
    u32 token;
    float highest; // logit of the likeliest, after the penalty
    u32 failed;    // 1 where a logit is not a number, or the highest is not finite: the token means nothing then
    u32 step;      // the choice's: an answer that was left there by another step is told from this one's
};
