//! A supervisor over the stand-in, in each state and against each limit.

mod answers;
mod kit;
mod life;
mod real;
mod view;
