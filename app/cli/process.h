// What a command shares with whoever started it: signals and the standard streams.
#pragma once

#include <fmt/format.h>

#include <string_view>
#include <utility>

namespace vkflux::cli {

/// Comes first. SIGINT, SIGTERM and SIGHUP ask long work to end (vk/interrupt.h); SIGINT or SIGTERM once more
/// ends the process at once. A pipe that nobody reads and a file that may not grow are failures of writing,
/// never signals.
void prepare_process();

/// To stdout. A failure is kept for finish_output(), so that no work is lost for what prints its result.
void write_out(std::string_view text) noexcept;
/// To stderr, for people; dropped where it can't be written.
void write_note(std::string_view text) noexcept;
/// Flushes stdout, for lines that somebody waits for.
void flush_out() noexcept;

/// Results, as with fmt::print.
template <class... T>
void print_out(fmt::format_string<T...> format, T&&... values) {
  write_out(fmt::format(format, std::forward<T>(values)...));
}
/// Messages for people, as with fmt::print.
template <class... T>
void print_note(fmt::format_string<T...> format, T&&... values) {
  write_note(fmt::format(format, std::forward<T>(values)...));
}

/// Flushes stdout; false, with a message, when results couldn't be written. A reader that went away before
/// the end, as `head` does, had enough and is no failure.
bool finish_output();

}  // namespace vkflux::cli
