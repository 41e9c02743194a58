// `--profile` and `--profile-trace` of the commands that run models.
#pragma once

#include <string>

#include "app/cli/cli.h"

namespace vkflux::cli {

struct ProfileArgs {
  bool table = false;
  std::string trace;
};

void add_profile_options(CLI::App& command, ProfileArgs& args);

/// Chrome's trace events: one complete event ("ph": "X", microseconds) per command of the device, within the
/// events of the parts of the model that it belongs to.
nlohmann::ordered_json profile_trace(const Device& device, const Profiler& profiler);

/// Profiles the device while it lives; its end waits for the device, prints the table on stderr and writes
/// the trace. A trace that can't be written is a warning: the work itself is done.
class ProfileSession {
 public:
  ProfileSession(Device& device, const ProfileArgs& args);
  ~ProfileSession();
  ProfileSession(const ProfileSession&) = delete;
  ProfileSession& operator=(const ProfileSession&) = delete;

 private:
  void finish();

  Device& device_;
  ProfileArgs args_;
};

}  // namespace vkflux::cli
