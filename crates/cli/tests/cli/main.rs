//! The binary as a user meets it: exit codes, messages, streams, signals, hostile files, and that a command which fails
//! leaves nothing behind. Every command runs under an address-space limit of 8 GiB and a time limit.
#![cfg(unix)]

mod converting;
mod data;
mod devices;
mod exporting;
mod fixtures;
mod hostile;
mod interrupt;
mod methods;
mod reading;
mod refusals;
mod sandbox;
mod streams;
mod unmerge;
mod writing;
