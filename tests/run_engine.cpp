// Runs a program of the native engine from a file, for CPUs that this machine only emulates.
// The file: int64 sizes of each part, then the parts in the order in which they are read here.

#include "engine.cpp"

#include <cstdio>
#include <fstream>

template <class T> std::vector<T> part(std::ifstream& file, int64_t bytes) {
    std::vector<T> data(bytes / sizeof(T));
    file.read(reinterpret_cast<char*>(data.data()), bytes);
    return data;
}

int main(int, char** arguments) {
    std::ifstream file(arguments[1], std::ios::binary);
    int64_t sizes[10];
    file.read(reinterpret_cast<char*>(sizes), sizeof sizes);
    auto program = part<Program>(file, sizes[0])[0];  // whose pointers have to be found
    auto phases = part<Phase>(file, sizes[1]);
    auto instructions = part<Instruction>(file, sizes[2]);
    auto puts = part<int64_t>(file, sizes[3]);
    auto taps = part<View>(file, sizes[4]);
    auto rings = part<Ring>(file, sizes[5]);
    auto rows = part<int32_t>(file, sizes[6]);
    auto constants = part<char>(file, sizes[7]);
    auto slots = part<int32_t>(file, sizes[8]);
    auto frames = part<float>(file, sizes[9]);
    program.phases = phases.data(), program.instructions = instructions.data();
    program.puts = puts.data(), program.taps = taps.data(), program.rings = rings.data();
    program.rows = rows.data(), program.constants = constants.data();
    void* net = co3d_create(&program);
    std::vector<char> state(program.batch * std::atoll(arguments[4]));
    std::vector<float> logits(program.batch * std::atoi(arguments[2]));
    const int64_t count = std::atoi(arguments[3]), size = frames.size() / count;
    for (int64_t n = 0; n < count; n++)
        co3d_step(net, frames.data() + n * size, state.data(), slots.data(), logits.data(),
                  n % phases.size(), n, program.threads);
    for (float logit : logits) std::printf("%.9g\n", logit);
    co3d_destroy(net);
}
