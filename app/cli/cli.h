// The command line: one file per command, each adding itself to the CLI11 application.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "app/cli/process.h"
#include "vk/device.h"
#include "vk/error.h"
#include "vk/interrupt.h"

namespace vkflux::cli {

// Documented in `vkflux --help` and README.md.
enum ExitCode {
  kOk = 0,
  kUsage = 2,
  kLimit = 3,  // out of memory, over a limit of the device, or something that isn't implemented
  kBadFile = 4,
  kDeviceLost = 5,
  kVerificationFailed = 6,
  kNoDevice = 7,
  kInterrupted = 130,
};
int exit_code(ErrorCode code);

/// What every command has: --device, --json, and the text of its example.
struct Common {
  std::string device;
  bool json = false;
};

/// Adds a command with the common flags; `run` is called after parsing and returns the exit code.
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& what,
                      const std::string& example, std::shared_ptr<Common> common, std::function<int()> run);

/// vram: bytes that it may use, 0: no limit of ours.
std::unique_ptr<Device> open_device(const Common& common, uint64_t vram = 0);

/// WIDTHxHEIGHT in pixels; "" is {0, 0}: the model's size. Error invalid_argument for another form.
std::pair<int64_t, int64_t> parse_size(const std::string& text);

/// What a command was asked for, by the names of its flags (with _ for -), and the defaults that it shows:
/// for a run's params.json. A flag that neither was given nor shows a default is left out.
nlohmann::ordered_json settings_of(const CLI::App& command);

/// A progress bar on stderr (only when it is a terminal; else a line now and then).
class Progress {
 public:
  Progress(std::string what, int64_t total, int64_t done = 0);
  ~Progress();
  void update(int64_t done, const std::string& note = "");

 private:
  std::string what_;
  int64_t total_, first_;
  double started_, last_ = 0;
  bool terminal_;
};

void add_devices(CLI::App& app);
void add_inspect(CLI::App& app);
void add_dataset(CLI::App& app);
void add_train(CLI::App& app);
void add_train_controller(CLI::App& app);
void add_evaluate_controller(CLI::App& app);
void add_eval(CLI::App& app);
void add_sample(CLI::App& app);
void add_verify(CLI::App& app);
void add_bench(CLI::App& app);
void add_kernels(CLI::App& app);
void add_distill(CLI::App& app);
void add_plan(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_convert(CLI::App& app);

/// All commands with their flags.
std::unique_ptr<CLI::App> make_app();

/// Parses and runs; the process's exit code.
int run(int argc, const char* const* argv);

}  // namespace vkflux::cli
