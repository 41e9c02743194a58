// Whether somebody wants this process's long work to end. A signal handler asks; loops look between their
// steps.
#pragma once

namespace vkflux {

/// Asks all long work to end at its next step. May be called from a signal handler.
void request_interrupt() noexcept;
/// Takes the request back: a host that goes on after it ended something.
void clear_interrupt() noexcept;
bool interrupted() noexcept;
/// Error cancelled, which says what was interrupted, once somebody asked.
void check_interrupted(const char* what);

}  // namespace vkflux
