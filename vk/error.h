// Typed errors with context. Every failure that a caller can meet is an Error with one of these codes.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace vkflux {

enum class ErrorCode {
  invalid_argument,      // the caller passed something that can't be
  unsupported,           // well-formed, but not something this build or device can do
  format,                // a file's contents are wrong
  io,                    // the operating system refused to read or write
  out_of_device_memory,  // the device or the pool's budget is exhausted
  out_of_host_memory,
  device_lost,  // sticky: every later call on that device fails with it
  no_device,    // no Vulkan device fits
  cancelled,
  verification_failed,
  internal,  // our own bug
};

std::string_view name(ErrorCode code);

/// The one exception type. what() is "context: context: message"; contexts come from the ErrorContext objects
/// alive on this thread when the Error was made.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message);
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

/// Names what is being done, for the messages of errors thrown while it is alive: ErrorContext
/// ctx("double_blocks.3").
class ErrorContext {
 public:
  explicit ErrorContext(std::string what);
  ~ErrorContext();
  ErrorContext(const ErrorContext&) = delete;
  ErrorContext& operator=(const ErrorContext&) = delete;
};

}  // namespace vkflux
