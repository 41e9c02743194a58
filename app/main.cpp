#include "app/cli/cli.h"

int main(int argc, char** argv) {
  vkflux::cli::prepare_process();
  const int code = vkflux::cli::run(argc, argv);
  const bool written = vkflux::cli::finish_output();
  return written || code != vkflux::cli::kOk ? code : vkflux::cli::kBadFile;
}
