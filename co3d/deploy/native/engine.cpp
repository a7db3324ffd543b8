// The native engine: the step of a continual network as a list of instructions over maps.
//
// A map is rows of pixels, each with its channels side by side, padded to whole vectors with zeros.
// Tables say where each pixel begins, so borders, strides and batches need no code of their own.
// State lies in rings, into which the instructions write directly. phase.py makes the
// instructions; this file runs them. It needs vector types of the compiler: GCC or Clang.

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define UNROLL _Pragma("GCC unroll 16")

namespace {

// ---- Vectors ----------------------------------------------------------------------------------
#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int LANES = 8, REGISTERS = 16;
#else  // NEON, or whatever the compiler makes of it
constexpr int LANES = 4, REGISTERS = 32;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef float LooseVec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t IntVec __attribute__((vector_size(LANES * 4)));
struct Half { uint16_t bits; };  // bfloat16

inline Vec splat(float x) { return Vec{} + x; }
inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
inline void store(float* p, Vec x) { *reinterpret_cast<LooseVec*>(p) = x; }
inline void multiply(Vec& sum, const float* x, const float* w) { sum += *x * load(w); }

#if defined(__AVX512BF16__)
constexpr bool BFLOAT16 = true;
inline Vec load(const Half* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return reinterpret_cast<Vec>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline void store(Half* p, Vec x) {
    const __m256bh half = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x));
    std::memcpy(p, &half, sizeof half);
}
inline void multiply(Vec& sum, const Half* x, const Half* w) {  // two neighbours in depth at once
    int32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    __m512bh weights;
    std::memcpy(&weights, w, sizeof weights);
    const __m512bh both = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
    sum = reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), both, weights));
}
#else  // never called: `co3d_bfloat16` says so
constexpr bool BFLOAT16 = false;
inline Vec load(const Half*) { return Vec{}; }
inline void store(Half*, Vec) {}
inline void multiply(Vec&, const Half*, const Half*) {}
#endif

inline Vec relu(Vec x) { return x < Vec{} ? Vec{} : x; }  // NaN stays NaN

inline Vec exponential(Vec x) {  // a polynomial of degree 6 after reduction to +-ln(2) / 2
    x = x < splat(-87.0f) ? splat(-87.0f) : x;
    x = x > splat(88.0f) ? splat(88.0f) : x;
    const Vec shift = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    Vec n = x * 1.44269504f + shift;
    const IntVec power = reinterpret_cast<IntVec>(n) << 23;
    n -= shift;
    const Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    constexpr float factors[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    Vec y = {};
    for (float factor : factors) y = y * r + factor;
    y = y * r * r + r + 1.0f;
    return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(y) + power);
}

inline Vec sigmoid(Vec x) {
    const Vec y = 1.0f / (1.0f + exponential(-x));
    return x == x ? y : x;
}

enum Activation { LINEAR, RELU, SILU, SIGMOID };
inline Vec activate(Vec x, int64_t kind) {
    if (kind == RELU) return relu(x);
    if (kind == SILU) return x / (1.0f + exponential(-x));
    return kind == SIGMOID ? sigmoid(x) : x;
}

// ---- The program, as layout.py lays it out ----------------------------------------------------
enum Base { NOWHERE, LOGITS, SCRATCH, SPARE, STATE };
enum Kind { INPUT, PRODUCT, DEPTHWISE, SCALE, POOL, AVERAGE, TILES_IN, TILES_OUT, SUMS };

struct View {  // of pixels
    int64_t base;    // STATE + n: ring n
    int64_t back;    // of a ring: what was put in `back` times before the newest
    int64_t offset;  // bytes to the first pixel
    int64_t rows;    // where its table begins, which gives the element of every pixel
    int64_t length;  // of what PRODUCT reads: neighbours that it multiplies
};

struct Instruction {
    int64_t kind;
    View out, add;             // the result, and what is added to it
    int64_t first;             // before that frame the result is 0
    int64_t first_sums;        // of SUMS: before that frame the new sums are 0
    int64_t activation;
    int64_t rows, vectors;     // of the result
    int64_t in_half, out_half;  // bfloat16 rather than float32
    int64_t tap, taps;         // what it reads, in the list of taps
    int64_t weights, bias;     // where they begin, in bytes
    int64_t size[2], in_size[2];  // height and width of the result and the input, for each stream
    int64_t kernel[2], stride[2], padding[2], dilation[2];
    int64_t grid[2];           // into how many chunks the work is cut: rows, vectors
    int64_t pitch, step;       // elements from one line, from one pixel of the input to the next
    int64_t channels;          // of INPUT
    int64_t inner;             // of SCALE: channels between the two products of the gate
    int64_t sums, parts;       // whether it sums pixels for a gate; of SCALE: sums of an image
    int64_t repeats, in_repeat, out_repeat, weights_repeat;  // of PRODUCT: for each tile element
};

// A ring keeps the last `length` maps. Its entries in the table of a stream tell where they lie, the
// newest first, and one more what was replaced. A new map goes into the spare slot of all rings that
// share memory, and the oldest one becomes the spare; without a spare it replaces the oldest.
struct Ring {
    int64_t table, length;
    int64_t spare;  // in the table; -1: none
};

struct Phase {
    int64_t first, count;          // instructions
    int64_t first_put, put_count;  // the rings into which it puts something
};

struct Program {  // the caller keeps all that this points to
    const Phase* phases;
    const Instruction* instructions;
    const int64_t* puts;
    const View* taps;
    const Ring* rings;
    const int32_t* rows;
    const char* constants;  // weights and biases
    int64_t longest;        // instructions of a phase
    int64_t table;          // entries of a stream's table of slots
    int64_t batch, threads;
    int64_t scratch_bytes;  // whole pages of HUGE_PAGE
    int64_t spare;          // where the scratch begins that one operation uses
};

typedef std::unique_ptr<char, decltype(&std::free)> Memory;

struct Net : Program {
    std::mutex lock;
    std::vector<Memory> unused;  // scratch memory that no call uses
    struct Pool* pool = nullptr;
};

struct Stream {  // what one call works on
    char* state;
    const int32_t* slots;  // bytes into the state, the same in all streams of a batch
    float* logits;
    char* scratch;
    const float* frame;
    int64_t age;
};

inline int64_t cut(int64_t n, int64_t parts, int64_t i) { return n * i / parts; }

// A chunk of an instruction: some rows and vectors (for PRODUCT blocks of vectors) of the result.
struct Work {
    const Net& net;
    const Stream& s;
    const Instruction& i;
    int64_t row = 0, row_end = 0, vector = 0, vector_end = 0, part = 0;

    template <class T> T* at(const View& view) const {
        if (view.base == NOWHERE) return nullptr;
        char* base = view.base == LOGITS ? reinterpret_cast<char*>(s.logits) : s.scratch;
        if (view.base == SPARE) base += net.spare;
        if (view.base >= STATE)
            base = s.state + s.slots[net.rings[view.base - STATE].table + view.back];
        return reinterpret_cast<T*>(base + view.offset);
    }
    const int32_t* rows(const View& view) const { return net.rows + view.rows; }
    const View& tap(int64_t n) const { return net.taps[i.tap + n]; }
    int64_t begin() const { return vector * LANES; }
    int64_t end() const { return vector_end * LANES; }
    template <class T> const T* constants(int64_t at) const {
        return reinterpret_cast<const T*>(net.constants + at);
    }
    float* sums() const { return reinterpret_cast<float*>(s.scratch + net.spare); }
};

// ---- Products ---------------------------------------------------------------------------------
constexpr int MAX_VECTORS = REGISTERS == 32 ? 4 : 2, MAX_ROWS = 8, MAX_TAPS = 128;
constexpr int rows_of(int vectors) {  // accumulators, a row of weights and two numbers in registers
    return std::min(MAX_ROWS, (REGISTERS - 2 - vectors) / vectors);
}
inline int64_t blocks_of(int64_t vectors) {  // of columns: one or an even number, for two threads
    const int64_t count = (vectors + MAX_VECTORS - 1) / MAX_VECTORS;
    return count > 1 ? count + count % 2 : count;
}
template <class T> constexpr int DEPTH = sizeof(T) == 2 ? 2 : 1;  // numbers that `multiply` takes

template <class In, class Out> struct Tile {  // what a tile of rows and columns needs
    const In* taps[MAX_TAPS];
    int64_t tables[MAX_TAPS], lengths[MAX_TAPS], count;
    const In* weights;
    const float* bias;
    const int32_t *in_rows, *out_rows, *add_rows;
    Out* out;
    const Out* add;
    bool relu;
};

template <class In, class Out, int R, int V> void product_tile(const Tile<In, Out>& t) {
    Vec sum[R][V];
    UNROLL for (int v = 0; v < V; v++) {
        const Vec start = load(t.bias + v * LANES);
        UNROLL for (int r = 0; r < R; r++) sum[r][v] = start;
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < V; v++) __builtin_prefetch(t.out + t.out_rows[r] + v * LANES, 1, 3);
    const In* w = t.weights;
    for (int64_t tap = 0; tap < t.count; tap++) {
        const In* x[R];
        for (int r = 0; r < R; r++) x[r] = t.taps[tap] + t.in_rows[t.tables[tap] + r];
        for (int64_t k = 0; k < t.lengths[tap]; k += DEPTH<In>, w += V * LANES * DEPTH<In>)
            UNROLL for (int r = 0; r < R; r++)
                UNROLL for (int v = 0; v < V; v++)
                    multiply(sum[r][v], x[r] + k, w + v * LANES * DEPTH<In>);
    }
    if (t.add)
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int v = 0; v < V; v++) sum[r][v] += load(t.add + t.add_rows[r] + v * LANES);
    if (t.relu)
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int v = 0; v < V; v++) sum[r][v] = relu(sum[r][v]);
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < V; v++) store(t.out + t.out_rows[r] + v * LANES, sum[r][v]);
}

template <class In, class Out> using TileFunction = void (*)(const Tile<In, Out>&);
template <class In, class Out> struct Tiles {  // of every number of rows and vectors
    TileFunction<In, Out> of[MAX_VECTORS + 1][MAX_ROWS + 1] = {};
    Tiles() { fill<1, 1>(); }
    template <int V, int R> void fill() {
        of[V][R] = product_tile<In, Out, R, V>;
        if constexpr (R < rows_of(V)) fill<V, R + 1>();
        else if constexpr (V < MAX_VECTORS) fill<V + 1, 1>();
    }
};

template <class In, class Out> void product(const Work& w) {
    static const Tiles<In, Out> tiles;
    const Instruction& i = w.i;
    Tile<In, Out> t = {};
    t.count = i.taps, t.relu = i.activation == RELU;
    int64_t depth = 0;
    for (int64_t n = 0; n < i.taps; n++) {
        const View& tap = w.tap(n);
        t.taps[n] = w.at<In>(tap) + w.part * i.in_repeat, t.tables[n] = tap.rows;
        depth += t.lengths[n] = tap.length;
    }
    Out* out = w.at<Out>(i.out) + w.part * i.out_repeat;
    const Out* add = w.at<Out>(i.add);
    const In* weights = w.constants<In>(i.weights);
    const int64_t blocks = blocks_of(i.vectors);
    for (int64_t block = w.vector; block < w.vector_end; block++) {
        const int64_t from = cut(i.vectors, blocks, block);
        const int64_t width = cut(i.vectors, blocks, block + 1) - from;
        t.weights = weights + w.part * i.weights_repeat + from * LANES * depth;
        t.bias = w.constants<float>(i.bias) + from * LANES;
        t.out = out + from * LANES, t.add = add ? add + from * LANES : nullptr;
        const int64_t count = w.row_end - w.row, parts = (count - 1) / rows_of(width) + 1;
        for (int64_t n = 0; n < parts; n++) {
            const int64_t row = w.row + cut(count, parts, n), end = w.row + cut(count, parts, n + 1);
            t.in_rows = w.net.rows + row;
            t.out_rows = w.rows(i.out) + row, t.add_rows = w.rows(i.add) + row;
            tiles.of[width][end - row](t);
            if (i.activation > RELU)
                for (int64_t r = 0; r < end - row; r++)
                    for (Out *y = t.out + t.out_rows[r], *last = y + width * LANES; y < last; y += LANES)
                        store(y, activate(load(y), i.activation));
        }
    }
}

// ---- Convolutions of each channel alone -------------------------------------------------------
// A line of results at one vector of channels, P neighbours at a time, which share what they load.
// K and S are width and stride of the kernel. OUT is 1, or 3 where a single frame is added to all
// sums of a 3x3x3 kernel: the first completes a result, the others go on as the new sums.
template <class T, int OUT> struct Plane {
    int64_t taps, kernel_h, line, step, channels;
    int64_t top, bottom;   // lines of the kernel that lie inside the image
    const T* in[32];
    const int32_t* in_rows[32];
    const float* weights;  // [tap][kernel_h][K][channels]
    Vec bias;
    const T* add[2];
    T* out[OUT];
    const int32_t *add_rows[2], *out_rows[OUT];
    int64_t activation;
    bool early;            // whether the new sums are padding, which is 0
};

template <class T, int OUT, int P, int K, int S>
__attribute__((noinline)) Vec plane_tile(const Plane<T, OUT>& g, int64_t row, int64_t c) {
    constexpr int N = (P - 1) * S + K;
    Vec sum[OUT][P] = {};
    UNROLL for (int p = 0; p < P; p++) sum[0][p] = g.bias;
    for (int64_t tap = 0; tap < g.taps; tap++) {
        const T* line = g.in[tap] + g.in_rows[tap][row] + g.top * g.line + c;
        const float* w = g.weights + (tap * g.kernel_h + g.top) * K * g.channels + c;
        for (int64_t y = g.top; y < g.bottom; y++, line += g.line, w += K * g.channels) {
            const T* x = line;
            UNROLL for (int n = 0; n < N; n++, x += g.step) {
                const Vec in = load(x);
                UNROLL for (int p = 0; p < P; p++)
                    if (n - p * S >= 0 && n - p * S < K)
                        UNROLL for (int t = 0; t < OUT; t++)
                            sum[t][p] += in * load(w + (t * g.kernel_h * K + n - p * S) * g.channels);
            }
        }
        UNROLL for (int p = 0; p < P; p++)  // of the next line
            __builtin_prefetch(line + p * S * g.step, 0, 2);
    }
    UNROLL for (int t = 0; t < 2; t++)
        if (t < OUT && g.add[t])
            UNROLL for (int p = 0; p < P; p++) sum[t][p] += load(g.add[t] + g.add_rows[t][row + p] + c);
    UNROLL for (int t = 1; t < OUT; t++)
        UNROLL for (int p = 0; p < P; p++)
            store(g.out[t] + g.out_rows[t][row + p] + c, g.early ? Vec{} : sum[t][p]);
    Vec total = {};
    UNROLL for (int p = 0; p < P; p++) {
        total += sum[0][p];
        store(g.out[0] + g.out_rows[0][row + p] + c, sum[0][p]);
    }
    return total;
}

template <class T, int OUT, int K, int S> void plane_lines(const Work& w, Plane<T, OUT>& g) {
    constexpr int P = REGISTERS == 16 ? (OUT == 1 ? 5 : 2) : (OUT > 1 ? 4 : S == 1 ? 8 : 5);
    typedef Vec (*Function)(const Plane<T, OUT>&, int64_t, int64_t);
    static constexpr auto tiles = []<size_t... n>(std::index_sequence<n...>) {
        return std::array<Function, P>{plane_tile<T, OUT, n + 1, K, S>...};
    }(std::make_index_sequence<P>());
    const Instruction& i = w.i;
    float* sums = i.sums ? w.sums() + w.part * i.vectors * LANES : nullptr;
    const float* bias = w.constants<float>(i.bias);
    if (sums) std::fill(sums + w.begin(), sums + w.end(), 0.0f);
    for (int64_t line = w.row; line < w.row_end; line += i.size[1]) {
        const int64_t y = line / i.size[1] % i.size[0], d = i.dilation[0];
        const int64_t top = y * i.stride[0] - i.padding[0];
        g.top = std::max<int64_t>(0, (d - 1 - top) / d);
        g.bottom = std::min(g.kernel_h, (i.in_size[0] - top + d - 1) / d);
        for (int64_t row = line, end = line + i.size[1], n; row < end; row += n) {
            n = std::min<int64_t>(P, end - row);
            if (end - row > P && end - row < 2 * P) n = (end - row + 1) / 2;  // two alike
            for (int64_t c = w.begin(); c < w.end(); c += LANES) {
                g.bias = load(bias + c);
                const Vec total = tiles[n - 1](g, row, c);
                if (i.activation)
                    for (int64_t p = row; p < row + n; p++) {
                        T* y = g.out[0] + g.out_rows[0][p] + c;
                        store(y, activate(load(y), i.activation));
                    }
                if (sums) store(sums + c, load(sums + c) + total);
            }
        }
    }
}

template <class T, int OUT> void depthwise(const Work& w) {
    const Instruction& i = w.i;
    Plane<T, OUT> g = {OUT == 1 ? i.taps : 1, i.kernel[0], i.dilation[0] * i.pitch, i.step};
    g.channels = i.vectors * LANES, g.early = w.s.age < i.first_sums;
    g.weights = w.constants<float>(i.weights);
    for (int64_t n = 0; n < g.taps; n++)
        g.in[n] = w.at<T>(w.tap(n)), g.in_rows[n] = w.rows(w.tap(n));
    g.out[0] = w.at<T>(i.out), g.out_rows[0] = w.rows(i.out);
    g.add[0] = w.at<T>(i.add), g.add_rows[0] = w.rows(i.add);
    if constexpr (OUT == 3) {  // the taps: input, two sums, two places for new ones
        for (int t = 0; t < 2; t++) {
            g.add[t] = w.at<T>(w.tap(1 + t)), g.add_rows[t] = w.rows(w.tap(1 + t));
            g.out[1 + t] = w.at<T>(w.tap(3 + t)), g.out_rows[1 + t] = w.rows(w.tap(3 + t));
        }
        return i.stride[1] == 1 ? plane_lines<T, 3, 3, 1>(w, g) : plane_lines<T, 3, 3, 2>(w, g);
    } else {
        if (i.kernel[1] == 1) return plane_lines<T, 1, 1, 1>(w, g);
        return i.stride[1] == 1 ? plane_lines<T, 1, 3, 1>(w, g) : plane_lines<T, 1, 3, 2>(w, g);
    }
}

// ---- The gate of squeeze and excitation -------------------------------------------------------
// Each thread computes the gates of all streams for itself, which is cheaper than waiting.
thread_local std::vector<float> gates;

void compute_gates(const Work& w) {
    const Instruction& i = w.i;
    const int64_t batch = w.net.batch, wide = i.vectors * LANES, narrow = i.inner;
    const float *sums = w.sums(), *w1 = w.constants<float>(i.weights);  // [narrow][wide], then biases
    const float *b1 = w1 + narrow * wide, *w2 = b1 + narrow, *b2 = w2 + narrow * wide;
    const float per_pixel = float(batch) / float(i.rows);
    gates.resize(std::max<size_t>(gates.size(), batch * wide + narrow));
    float* inner = gates.data() + batch * wide;
    for (int64_t n = 0; n < batch; n++) {
        float* gate = gates.data() + n * wide;
        for (int64_t c = 0; c < wide; c += LANES) {
            Vec total = {};
            for (int64_t p = 0; p < i.parts; p++) total += load(sums + (n * i.parts + p) * wide + c);
            store(gate + c, total * per_pixel);
        }
        for (int64_t j = 0; j < narrow; j++) {
            Vec total = {};
            for (int64_t c = 0; c < wide; c += LANES)
                total += load(gate + c) * load(w1 + j * wide + c);
            float y = b1[j];
            for (int lane = 0; lane < LANES; lane++) y += total[lane];
            inner[j] = y < 0 ? 0 : y;
        }
        for (int64_t c = 0; c < wide; c += LANES) {
            Vec y = load(b2 + c);
            for (int64_t j = 0; j < narrow; j++) y += inner[j] * load(w2 + j * wide + c);
            store(gate + c, sigmoid(y));
        }
    }
}

template <class T> void scale(const Work& w) {
    const int64_t pixels = w.i.rows / w.net.batch, wide = w.i.vectors * LANES;
    const float* all = gates.data();
    for (int64_t row = w.row; row < w.row_end; row++) {
        const float* gate = all + row / pixels * wide;
        T* y = w.at<T>(w.i.out) + w.rows(w.i.out)[row];
        for (int64_t c = 0; c < wide; c += LANES)
            store(y + c, activate(load(y + c) * load(gate + c), w.i.activation));
    }
}

// ---- The rest ---------------------------------------------------------------------------------
void input(const Work& w) {  // rows are lines of the frame
    const Instruction& i = w.i;
    const int64_t pixels = i.size[0] * i.size[1];
    for (int64_t row = w.row; row < w.row_end; row++) {
        const int64_t image = row / i.size[0], y = row % i.size[0];
        const float* in = w.s.frame + image * i.channels * pixels + y * i.size[1];
        float* out = w.at<float>(i.out) + w.rows(i.out)[row * i.size[1]];
        for (int64_t c = 0; c < i.channels; c++)
            for (int64_t x = 0; x < i.size[1]; x++) out[x * i.step + c] = in[c * pixels + x];
    }
}

template <class T> void pool(const Work& w) {  // of one pixel: a copy
    const Instruction& i = w.i;
    const T* add = w.at<T>(i.add);
    const Vec lowest = splat(-std::numeric_limits<float>::infinity());
    for (int64_t row = w.row; row < w.row_end; row++) {
        const int64_t top = row / i.size[1] % i.size[0] * i.stride[0] - i.padding[0];
        const int64_t left = row % i.size[1] * i.stride[1] - i.padding[1];
        T* out = w.at<T>(i.out) + w.rows(i.out)[row];
        for (int64_t c = 0; c < i.vectors * LANES; c += LANES) {
            Vec best = lowest;
            for (int64_t n = 0; n < i.taps; n++) {
                const T* in = w.at<T>(w.tap(n)) + w.rows(w.tap(n))[row] + c;
                for (int64_t v = 0; v < i.kernel[0]; v++)
                    for (int64_t u = 0; u < i.kernel[1]; u++) {
                        const int64_t down = v * i.dilation[0], across = u * i.dilation[1];
                        if (top + down < 0 || top + down >= i.in_size[0]) continue;
                        if (left + across < 0 || left + across >= i.in_size[1]) continue;
                        const Vec x = load(in + down * i.pitch + across * i.step);
                        best = x > best || x != x ? x : best;
                    }
            }
            if (add) best += load(add + w.rows(i.add)[row] + c);
            store(out + c, activate(best, i.activation));
        }
    }
}

template <class T> void average(const Work& w) {  // over all taps, and the pixels of each
    const int64_t pixels = w.i.in_size[0] * w.i.in_size[1];
    for (int64_t row = w.row; row < w.row_end; row++)
        for (int64_t c = w.begin(); c < w.end(); c += LANES) {
            Vec total = {};
            for (int64_t n = 0; n < w.i.taps; n++) {
                const T* in = w.at<T>(w.tap(n)) + c;
                const int32_t* rows = w.rows(w.tap(n)) + row * pixels;
                for (int64_t p = 0; p < pixels; p++) total += load(in + rows[p]);
            }
            store(w.at<float>(w.i.out) + w.rows(w.i.out)[row] + c, total / float(w.i.taps * pixels));
        }
}

// Winograd's F(4x4, 3x3), https://arxiv.org/abs/1509.09308: 36 products for 16 results in the place
// of 144. A tile of 6x6 inputs becomes 36 numbers; each goes through a product with those of all
// other tiles; 36 sums become 4x4 results.

inline void tile_in(const Vec* x, int64_t step, Vec* y) {
    const Vec a = x[0], b = x[step], c = x[2 * step], d = x[3 * step], e = x[4 * step];
    y[0] = 4.0f * a - 5.0f * c + e;
    y[step] = d + e - 4.0f * (b + c);
    y[2 * step] = e - d + 4.0f * (b - c);
    y[3 * step] = e - c + 2.0f * (d - b);
    y[4 * step] = e - c + 2.0f * (b - d);
    y[5 * step] = 4.0f * b - 5.0f * d + x[5 * step];
}
inline void tile_out(const Vec* x, int64_t step, Vec* y) {
    const Vec sum = x[step] + x[2 * step], difference = x[step] - x[2 * step];
    const Vec more = x[3 * step] + x[4 * step], less = x[3 * step] - x[4 * step];
    y[0] = x[0] + sum + more;
    y[step] = difference + 2.0f * less;
    y[2 * step] = sum + 4.0f * more;
    y[3 * step] = difference + 8.0f * less + x[5 * step];
}

void tiles_in(const Work& w) {
    const Instruction& i = w.i;
    for (int64_t row = w.row; row < w.row_end; row++)
        for (int64_t c = 0; c < i.vectors * LANES; c += LANES) {
            const float* in = w.at<float>(w.tap(0)) + w.rows(w.tap(0))[row] + c;
            float* out = w.at<float>(i.out) + w.rows(i.out)[row] + c;
            Vec x[36], y[36];
            for (int64_t n = 0; n < 36; n++) x[n] = load(in + n / 6 * i.pitch + n % 6 * i.step);
            for (int64_t n = 0; n < 6; n++) tile_in(x + n, 6, y + n);
            for (int64_t n = 0; n < 6; n++) tile_in(y + 6 * n, 1, x + 6 * n);
            for (int64_t n = 0; n < 36; n++) store(out + n * i.out_repeat, x[n]);
        }
}

void tiles_out(const Work& w) {
    const Instruction& i = w.i;
    float* out = w.at<float>(i.out);
    const float *add = w.at<float>(i.add), *bias = w.constants<float>(i.bias);
    const int64_t across = (i.size[1] + 3) / 4, down = (i.size[0] + 3) / 4;
    for (int64_t row = w.row; row < w.row_end; row++) {
        const int64_t top = row / across % down * 4, left = row % across * 4;
        const int64_t first = (row / (across * down) * i.size[0] + top) * i.size[1] + left;
        for (int64_t c = 0; c < i.vectors * LANES; c += LANES) {
            const float* in = w.at<float>(w.tap(0)) + w.rows(w.tap(0))[row] + c;
            Vec x[36], y[36];
            for (int64_t n = 0; n < 36; n++) x[n] = load(in + n * i.in_repeat);
            for (int64_t n = 0; n < 6; n++) tile_out(x + n, 6, y + n);
            for (int64_t n = 0; n < 4; n++) tile_out(y + 6 * n, 1, x + 6 * n);
            for (int64_t v = 0; v < std::min<int64_t>(4, i.size[0] - top); v++)
                for (int64_t u = 0; u < std::min<int64_t>(4, i.size[1] - left); u++) {
                    const int64_t pixel = first + v * i.size[1] + u;
                    Vec sum = x[6 * v + u] + load(bias + c);
                    if (add) sum += load(add + w.rows(i.add)[pixel] + c);
                    const Vec result = w.s.age < i.first ? Vec{} : activate(sum, i.activation);
                    store(out + w.rows(i.out)[pixel] + c, result);
                }
        }
    }
}

// ---- Running ----------------------------------------------------------------------------------
template <class T> void fill(const Work& w) {  // before `first`
    for (int64_t row = w.row; row < w.row_end; row++)
        for (int64_t c = 0; c < w.i.vectors * LANES; c += LANES)
            store(w.at<T>(w.i.out) + w.rows(w.i.out)[row] + c, Vec{});
}

template <class T> void run(const Work& w) {
    switch (w.i.kind) {
        case DEPTHWISE: return depthwise<T, 1>(w);
        case SUMS: return depthwise<T, 3>(w);
        case SCALE: return scale<T>(w);
        case POOL: return pool<T>(w);
        default: return average<T>(w);
    }
}

void run_chunk(const Net& net, const Stream& s, const Instruction& i, int64_t number) {
    Work w = {net, s, i};
    const int64_t across = number % i.grid[1], down = number / i.grid[1] % i.grid[0];
    w.part = number / (i.grid[1] * i.grid[0]);
    w.row = cut(i.rows, i.grid[0], down), w.row_end = cut(i.rows, i.grid[0], down + 1);
    const int64_t columns = i.kind == PRODUCT ? blocks_of(i.vectors) : i.vectors;
    w.vector = cut(columns, i.grid[1], across);
    w.vector_end = cut(columns, i.grid[1], across + 1);
    if (i.kind == DEPTHWISE || i.kind == SUMS) {  // whole lines of an image
        const int64_t parts = i.grid[0] / net.batch, part = down % parts, top = down / parts * i.size[0];
        w.row = (top + cut(i.size[0], parts, part)) * i.size[1];
        w.row_end = (top + cut(i.size[0], parts, part + 1)) * i.size[1];
        w.part = down;
    }
    if (i.kind == INPUT) return input(w);
    if (i.kind == TILES_IN) return tiles_in(w);
    if (i.kind == TILES_OUT) return tiles_out(w);
    if (s.age < i.first) return i.out_half ? fill<Half>(w) : fill<float>(w);
    if (i.kind != PRODUCT) return i.in_half ? run<Half>(w) : run<float>(w);
    if (i.in_half) return product<Half, Half>(w);
    return i.out_half ? product<float, Half>(w) : product<float, float>(w);
}

inline int64_t chunks(const Instruction& i) { return i.repeats * i.grid[0] * i.grid[1]; }

void run_alone(const Net& net, const Stream& s, const Phase& phase) {
    for (int64_t index = 0; index < phase.count; index++) {
        const Instruction& i = net.instructions[phase.first + index];
        if (i.kind == SCALE) compute_gates({net, s, i});
        for (int64_t n = 0; n < chunks(i); n++) run_chunk(net, s, i, n);
    }
}

typedef std::atomic<uint32_t> Word;
constexpr int SPIN_WITHIN = 50, SPIN_BETWEEN = 200;  // microseconds

// Waits until a word has another value: looks for some microseconds, then sleeps.
inline void await_change(Word& word, uint32_t old, int microseconds) {
    typedef std::chrono::steady_clock Clock;
    const auto until = Clock::now() + std::chrono::microseconds(microseconds);
    do
        for (int n = 0; n < 64; n++) {
            if (word.load(std::memory_order_acquire) != old) return;
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    while (Clock::now() < until);
    word.wait(old, std::memory_order_acquire);
}

// Threads that share the chunks of each instruction. Only those at work on a chunk are waited for: a
// thread that the system keeps from running costs its share, not the step. Chunks are claimed with
// the number of the call, so that a thread that comes late finds nothing to do.
struct Pool {
    struct alignas(64) Next { std::atomic<uint64_t> value{0}; };  // call << 32 | the next chunk
    struct alignas(64) Left { Word value{0}; };                   // chunks that are not done
    const Net& net;
    const int threads;
    const pid_t process = getpid();
    std::vector<Next> next;  // [instruction][thread]: each has chunks of its own, then helps others
    std::vector<Left> left;
    Word call{0};
    std::atomic<bool> stopping{false};
    std::mutex lock;
    Stream stream = {};
    Phase phase = {};
    std::vector<std::thread> workers;

    Pool(const Net& net)
        : net(net), threads(net.threads), next(net.longest * threads), left(net.longest) {
        for (int t = 1; t < threads; t++) workers.emplace_back([this, t] { serve(t); });
    }
    ~Pool() {
        stopping = true;
        call.fetch_add(1), call.notify_all();
        for (auto& one : left) one.value = 0, one.value.notify_all();
        for (auto& worker : workers) worker.join();
    }
    int64_t share(int64_t chunks, int thread) const { return (chunks * thread + threads - 1) / threads; }

    void run(const Stream& s, const Phase& p) {
        const uint32_t number = call.load() + 1;
        stream = s, phase = p;
        for (int64_t i = 0; i < p.count; i++) {
            const int64_t count = chunks(net.instructions[p.first + i]);
            left[i].value.store(count, std::memory_order_relaxed);
            for (int t = 0; t < threads; t++)
                next[i * threads + t].value.store(uint64_t(number) << 32 | share(count, t));
        }
        call.store(number, std::memory_order_release);
        call.notify_all();
        work(number, 0, s, p);
    }
    void serve(int thread) {
        for (uint32_t seen = 0; !stopping;) {
            await_change(call, seen, SPIN_BETWEEN);
            seen = call.load(std::memory_order_acquire);
            const Stream s = stream;
            const Phase p = phase;
            if (!stopping && call.load(std::memory_order_acquire) == seen) work(seen, thread, s, p);
        }
    }
    int64_t claim(uint32_t number, Next& of, int64_t end) {  // a chunk, or -1
        uint64_t value = of.value.load(std::memory_order_acquire);
        while (value >> 32 == number && int64_t(value & 0xffffffff) < end)
            if (of.value.compare_exchange_weak(value, value + 1)) return value & 0xffffffff;
        return -1;
    }
    void work(uint32_t number, int thread, const Stream& s, const Phase& p) {
        for (int64_t i = 0; i < p.count; i++) {
            const Instruction& instruction = net.instructions[p.first + i];
            const int64_t count = chunks(instruction);
            bool is_ready = instruction.kind != SCALE;
            for (int n = 0; n < threads; n++) {
                const int of = (thread + n) % threads;
                int64_t chunk;
                while ((chunk = claim(number, next[i * threads + of], share(count, of + 1))) >= 0) {
                    if (!is_ready) compute_gates({net, s, instruction}), is_ready = true;
                    run_chunk(net, s, instruction, chunk);
                    if (left[i].value.fetch_sub(1) == 1) left[i].value.notify_all();
                }
            }
            for (uint32_t some; (some = left[i].value.load(std::memory_order_acquire));) {
                if (call.load(std::memory_order_acquire) != number) return;
                await_change(left[i].value, some, SPIN_WITHIN);
            }
            if (call.load(std::memory_order_acquire) != number) return;
        }
    }
};

constexpr size_t PAGE = 4096, HUGE_PAGE = 1 << 21;

}  // namespace

// ---- What Python calls ------------------------------------------------------------------------
extern "C" {

int co3d_lanes() { return LANES; }
int co3d_max_vectors() { return MAX_VECTORS; }
int co3d_bfloat16() { return BFLOAT16; }

// Asks for large pages: with small ones the lookup of addresses costs time.
void co3d_advise(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
    const uintptr_t begin = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t first = (begin + PAGE - 1) / PAGE * PAGE, end = (begin + bytes) / PAGE * PAGE;
    if (end > first) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#endif
}

void* co3d_create(const Program* program) {
    auto net = new Net{*program};
    if (net->threads > 1) net->pool = new Pool(*net);
    return net;
}

void co3d_destroy(void* handle) {
    auto net = static_cast<Net*>(handle);
    if (net->pool && net->pool->process != getpid()) return;  // a fork has no threads to join
    delete net->pool;
    delete net;
}

// One step: 0, or 1 where the streams of the batch have other slots, or 2 without memory.
int co3d_step(void* handle, const float* frame, char* state, int32_t* slots, float* logits,
              int64_t phase, int64_t age, int64_t threads) {
    auto& net = *static_cast<Net*>(handle);
    for (int64_t b = 1; b < net.batch; b++)
        if (std::memcmp(slots, slots + b * net.table, net.table * sizeof *slots)) return 1;
    Memory scratch(nullptr, &std::free);
    {
        std::lock_guard<std::mutex> guard(net.lock);
        if (!net.unused.empty()) scratch = std::move(net.unused.back()), net.unused.pop_back();
    }
    if (!scratch) {
        scratch.reset(static_cast<char*>(std::aligned_alloc(HUGE_PAGE, net.scratch_bytes)));
        if (!scratch) return 2;
        co3d_advise(scratch.get(), net.scratch_bytes);
        std::memset(scratch.get(), 0, net.scratch_bytes);  // borders stay zero for ever
    }
    const Phase& now = net.phases[phase];
    for (int64_t n = 0; n < now.put_count * net.batch; n++) {
        const Ring& ring = net.rings[net.puts[now.first_put + n % now.put_count]];
        int32_t *table = slots + n / now.put_count * net.table, *first = table + ring.table;
        std::copy_backward(first, first + ring.length, first + ring.length + 1);
        first[0] = ring.spare < 0 ? first[ring.length] : table[ring.spare];
        if (ring.spare >= 0) table[ring.spare] = first[ring.length];
    }
    const Stream stream = {state, slots, logits, scratch.get(), frame, age};
    // A second caller at the same time, or a child of a fork, works alone.
    if (threads > 1 && net.pool->process == getpid() && net.pool->lock.try_lock()) {
        net.pool->run(stream, now);
        net.pool->lock.unlock();
    } else {
        run_alone(net, stream, now);
    }
    std::lock_guard<std::mutex> guard(net.lock);
    net.unused.push_back(std::move(scratch));
    return 0;
}

}  // extern "C"
