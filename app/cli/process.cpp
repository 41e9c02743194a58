#include "app/cli/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "vk/interrupt.h"

namespace vkflux::cli {
namespace {

// One press can arrive as two signals: `timeout` and terminals that close send theirs to a process and to its
// group, a few microseconds apart.
constexpr int64_t kSamePressNs = 100'000'000;

std::atomic<int64_t> g_first_signal{0};  // when it came
static_assert(std::atomic<int64_t>::is_always_lock_free, "a signal handler writes it");
int g_output_error = 0;  // errno of the first failure

int64_t now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// Only calls that a signal handler may make. A terminal that closes says so more than once, and its shell
// says it again: SIGHUP never ends work the hard way.
void on_signal(int signal) {
  const int64_t now = now_ns();
  int64_t first = 0;
  if (g_first_signal.compare_exchange_strong(first, now)) {
    request_interrupt();
  } else if (signal != SIGHUP && now - first > kSamePressNs) {
    ::signal(signal, SIG_DFL);
    ::raise(signal);
  }
}

void keep_error(int error) noexcept {
  if (g_output_error == 0) g_output_error = error ? error : EIO;
}

// A stream that is closed would be the next file that is opened, and messages would go into that.
void open_closed_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
    // The lowest free number is this one. Results that are written to it fail, messages are dropped.
    [[maybe_unused]] const int opened = ::open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
  }
}

}  // namespace

void prepare_process() {
  open_closed_streams();
  struct sigaction action {};
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  action.sa_handler = SIG_IGN;
  for (const int signal : {SIGPIPE, SIGXFSZ}) sigaction(signal, &action, nullptr);
  action.sa_handler = on_signal;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before {};
    sigaction(signal, nullptr, &before);
    if (signal == SIGHUP && before.sa_handler == SIG_IGN) continue;  // as nohup wants it
    sigaction(signal, &action, nullptr);
  }
}

void write_out(std::string_view text) noexcept {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) keep_error(errno);
}

void write_note(std::string_view text) noexcept {
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

void flush_out() noexcept {
  errno = 0;
  if (std::fflush(stdout) != 0) keep_error(errno);
}

bool finish_output() {
  flush_out();
  if (std::ferror(stdout)) keep_error(EIO);  // written by somebody else, who didn't look
  if (g_output_error == 0 || g_output_error == EPIPE) return true;
  spdlog::error("stdout: can't write the results: {}", std::strerror(g_output_error));
  return false;
}

}  // namespace vkflux::cli
