#include "app/cli/cli.h"

int main(int argc, char** argv) {
  return vkflux::cli::run(argc, argv);
}
