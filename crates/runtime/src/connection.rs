//! The daemon's end of the supervisor's socket: packets in and out, with descriptors.
