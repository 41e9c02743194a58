#include "vk/error.h"

#include <vector>

namespace vkflux {
namespace {

std::vector<std::string>& contexts() {
  thread_local std::vector<std::string> stack;
  return stack;
}

std::string with_context(const std::string& message) {
  std::string out;
  for (const auto& c : contexts()) out += c + ": ";
  return out + message;
}

}  // namespace

std::string_view name(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid_argument";
    case ErrorCode::unsupported:
      return "unsupported";
    case ErrorCode::format:
      return "format";
    case ErrorCode::io:
      return "io";
    case ErrorCode::out_of_device_memory:
      return "out_of_device_memory";
    case ErrorCode::out_of_host_memory:
      return "out_of_host_memory";
    case ErrorCode::device_lost:
      return "device_lost";
    case ErrorCode::no_device:
      return "no_device";
    case ErrorCode::cancelled:
      return "cancelled";
    case ErrorCode::verification_failed:
      return "verification_failed";
    case ErrorCode::internal:
      return "internal";
  }
  return "unknown";
}

Error::Error(ErrorCode code, const std::string& message)
    : std::runtime_error(with_context(message)), code_(code) {}

ErrorContext::ErrorContext(std::string what) {
  contexts().push_back(std::move(what));
}
ErrorContext::~ErrorContext() {
  contexts().pop_back();
}

}  // namespace vkflux
