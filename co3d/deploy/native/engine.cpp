// The native engine: the step of a continual network as a list of instructions over maps.
//
// A map is rows of pixels, each with its channels side by side, padded to whole vectors with zeros.
// Tables say where the row of a pixel begins, so that borders, strides and batches need no code of
// their own. State lies in rings, into which the instructions write directly. `native.py` makes the
// instructions; this file only runs them. It needs a compiler with vector types: GCC or Clang.

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
#include <sys/mman.h>
#include <unistd.h>
#include <utility>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

// ---------------------------------------------------------------- vectors

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int LANES = 8, REGISTERS = 16;
#else  // NEON, or whatever the compiler makes of it
constexpr int LANES = 4, REGISTERS = 32;
#endif
#if defined(__AVX512BF16__)
constexpr bool BFLOAT16 = true;
#else
constexpr bool BFLOAT16 = false;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef float LooseVec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t IntVec __attribute__((vector_size(LANES * 4)));
struct Half { uint16_t bits; };  // bfloat16

#define UNROLL _Pragma("GCC unroll 16")

inline Vec spread(float x) { return Vec{} + x; }
inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
inline void store(float* p, Vec x) { *reinterpret_cast<LooseVec*>(p) = x; }

inline Vec load(const Half* p) {
#if defined(__AVX512BF16__)
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return reinterpret_cast<Vec>(_mm512_slli_epi32(wide, 16));
#else
    return Vec{};
#endif
}
inline void store(Half* p, Vec x) {
#if defined(__AVX512BF16__)
    __m256bh half = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x));
    std::memcpy(p, &half, sizeof half);
#endif
}

inline Vec relu(Vec x) { return x < Vec{} ? Vec{} : x; }  // NaN stays NaN

inline Vec exponential(Vec x) {
    x = x < spread(-87.0f) ? spread(-87.0f) : x;
    x = x > spread(88.0f) ? spread(88.0f) : x;
    const Vec shift = spread(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
    Vec n = x * 1.44269504f + shift;
    IntVec power = reinterpret_cast<IntVec>(n) << 23;
    n -= shift;
    Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vec y = spread(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(y) + power);  // NaN has r = NaN
}
inline Vec sigmoid(Vec x) {
    Vec y = 1.0f / (1.0f + exponential(-x));
    return x == x ? y : x;
}
inline Vec silu(Vec x) { return x * sigmoid(x); }

enum Activation { LINEAR, RELU, SILU, SIGMOID };
inline Vec activate(Vec x, int64_t kind) {
    if (kind == RELU) return relu(x);
    if (kind == SILU) return silu(x);
    return kind == SIGMOID ? sigmoid(x) : x;
}

// ---------------------------------------------------------------- the program

enum Place { NOWHERE, FRAME, LOGITS, SCRATCH, STATE };
enum Kind { INPUT, PRODUCT, DEPTHWISE, SCALE, POOL, MEAN, WINDOW, COPY, TILES_IN, TILES_OUT, SUMS };

struct Map {            // where numbers lie
    int64_t place;
    int64_t ring;       // of STATE
    int64_t back;       // how many puts ago the ring got them
    int64_t offset;     // bytes to the first pixel
    int64_t rows;       // where the table of its rows begins: pixel to element
};

struct Tap {            // a part of the sums of a product: `length` neighbours from `map` on
    Map map;
    int64_t length;
};

struct Instruction {
    int64_t kind;
    Map out, add;                         // the result, and what is added to it
    int64_t first, infinite;              // before frame `first` the result is 0, or -infinity
    int64_t first_sums;                   // of SUMS: before that frame the new sums are 0
    int64_t activation;
    int64_t rows, vectors;                // of the result
    int64_t in_half, out_half;            // bfloat16 rather than float32
    int64_t tap, taps;                    // in the list of taps
    int64_t ahead, aheads;                // in that list: what the next instructions read from afar
    int64_t weights, bias;                // bytes and floats into the packed weights; bias -1: none
    int64_t height, width;                // of the result, per stream; rows = batch height width
    int64_t in_height, in_width;
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int64_t pitch, step;                  // elements from one line, one pixel to the next
    int64_t channels, inner;              // of INPUT; of SCALE, with the width of the gate
    int64_t sums;                         // scratch bytes of the sums over pixels; -1: none
    int64_t parts;                        // of an image, by which DEPTHWISE sums
    int64_t repeats, in_repeat, out_repeat, weights_repeat;  // a product for each of these steps
    int64_t grid_rows, grid_vectors;      // into how many chunks the work is cut
};

struct Ring {
    int64_t offset, slots, slot;  // bytes into the state; how many; bytes of each
};

struct Stream {                   // what one call works on
    const float* frame;
    char* state;
    const int32_t* heads;         // the slot of each ring that holds what was put in last
    float* logits;
    char* scratch;
    int64_t age;
};

struct Net {
    std::vector<std::vector<Instruction>> phases;
    std::vector<std::vector<int32_t>> puts;  // rings that get something, by phase
    std::vector<Tap> taps;
    std::vector<Ring> rings;
    std::vector<int32_t> rows;
    const char* packed;           // weights, kept by the caller
    const float* floats;
    int64_t batch, state_bytes, scratch_bytes, gate_floats;
    int threads;
    std::mutex lock;
    std::vector<std::unique_ptr<char, decltype(&std::free)>> spare;  // scratch that no call uses
    struct Pool* pool = nullptr;
};

inline char* locate(const Net& net, const Stream& s, const Map& map) {
    switch (map.place) {
        case FRAME: return reinterpret_cast<char*>(const_cast<float*>(s.frame)) + map.offset;
        case LOGITS: return reinterpret_cast<char*>(s.logits) + map.offset;
        case SCRATCH: return s.scratch + map.offset;
        case STATE: {
            const Ring& ring = net.rings[map.ring];
            int64_t slot = (s.heads[map.ring] - map.back + ring.slots) % ring.slots;
            return s.state + ring.offset + slot * ring.slot + map.offset;
        }
        default: return nullptr;
    }
}

struct Chunk { int64_t row, row_end, vector, vector_end, part; };

// ---------------------------------------------------------------- products

constexpr int MAX_VECTORS = REGISTERS == 32 ? 4 : 2;
constexpr int MAX_ROWS = 12;
constexpr int rows_of(int vectors) {  // accumulators, a row of weights and two numbers in registers
    int rows = (REGISTERS - 2 - vectors) / vectors;
    return rows > MAX_ROWS ? MAX_ROWS : rows;
}

template <class In> struct Weight { typedef float type; static constexpr int depth = 1; };
template <> struct Weight<Half> { typedef Half type; static constexpr int depth = 2; };

inline void multiply(Vec& sum, const float* x, const float* w) { sum += *x * load(w); }
inline void multiply(Vec& sum, const Half* x, const Half* w) {
#if defined(__AVX512BF16__)
    int32_t pair;
    std::memcpy(&pair, x, 4);
    __m512bh weights;
    std::memcpy(&weights, w, 64);
    sum = reinterpret_cast<Vec>(_mm512_dpbf16_ps(
        reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)), weights));
#endif
}

template <class In, class Out> struct Tile {  // what a block of rows and columns needs
    const In* const* taps;
    const int64_t *lengths, *tables;  // of each tap; its table counted from `in_rows`
    int64_t count;
    const typename Weight<In>::type* weights;
    const float* bias;
    const int32_t *in_rows, *out_rows, *add_rows;
    Out* out;
    const Out* add;
    int64_t activation;
    const char* ahead;   // memory that comes next, of which `pace` bytes are fetched at each step in depth
    int64_t pace;
};

template <class In, class Out, int R, int V> void product_tile(const Tile<In, Out>& t) {
    constexpr int depth = Weight<In>::depth;
    Vec sum[R][V];
    UNROLL for (int v = 0; v < V; v++) {
        Vec start = t.bias ? load(t.bias + v * LANES) : Vec{};
        UNROLL for (int r = 0; r < R; r++) sum[r][v] = start;
    }
    auto w = t.weights;
    const char* ahead = t.ahead;
    for (int64_t tap = 0; tap < t.count; tap++) {
        const In* x[R];
        for (int r = 0; r < R; r++) x[r] = t.taps[tap] + t.in_rows[t.tables[tap] + r];
        const int64_t length = t.lengths[tap];
        for (int64_t k = 0; k < length; k += depth) {
            UNROLL for (int r = 0; r < R; r++)
                UNROLL for (int v = 0; v < V; v++) multiply(sum[r][v], x[r] + k, w + v * LANES * depth);
            w += V * LANES * depth;
            __builtin_prefetch(ahead, 0, 2);
            ahead += t.pace;
        }
    }
    if (t.add)
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int v = 0; v < V; v++) sum[r][v] += load(t.add + t.add_rows[r] + v * LANES);
    if (t.activation == RELU)
        UNROLL for (int r = 0; r < R; r++)
            UNROLL for (int v = 0; v < V; v++) sum[r][v] = relu(sum[r][v]);
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < V; v++) store(t.out + t.out_rows[r] + v * LANES, sum[r][v]);
    if (t.activation > RELU)
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) {
                Out* y = t.out + t.out_rows[r] + v * LANES;
                store(y, activate(load(y), t.activation));
            }
}

template <class In, class Out> using TileFunction = void (*)(const Tile<In, Out>&);

template <class In, class Out, int V, int R = 1> struct Tiles {
    static void fill(TileFunction<In, Out>* table) {
        table[R - 1] = product_tile<In, Out, R, V>;
        if constexpr (R < rows_of(V)) Tiles<In, Out, V, R + 1>::fill(table);
    }
};
template <class In, class Out> struct Table {
    TileFunction<In, Out> of[MAX_VECTORS][MAX_ROWS] = {};
    Table() { fill<1>(); }
    template <int V> void fill() {
        Tiles<In, Out, V>::fill(of[V - 1]);
        if constexpr (V < MAX_VECTORS) fill<V + 1>();
    }
};

inline int64_t cut(int64_t n, int64_t parts, int64_t i) { return n * i / parts; }

template <class In, class Out>
void product(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    typedef typename Weight<In>::type W;
    static const Table<In, Out> table;
    const In* taps[128];
    int64_t lengths[128], tables[128], depth = 0;
    const int64_t repeat = chunk.part;
    for (int64_t n = 0; n < i.taps; n++) {
        const Tap& tap = net.taps[i.tap + n];
        taps[n] = reinterpret_cast<const In*>(locate(net, s, tap.map)) + repeat * i.in_repeat;
        depth += lengths[n] = tap.length, tables[n] = tap.map.rows;
    }
    const int32_t* rows = net.rows.data();
    Tile<In, Out> t = {taps, lengths, tables, i.taps};
    Out* out = reinterpret_cast<Out*>(locate(net, s, i.out)) + repeat * i.out_repeat;
    const Out* add = reinterpret_cast<const Out*>(locate(net, s, i.add));
    const W* weights = reinterpret_cast<const W*>(net.packed + i.weights) + repeat * i.weights_repeat;
    t.activation = i.activation;
    const int64_t blocks = (i.vectors + MAX_VECTORS - 1) / MAX_VECTORS;
    // The part of what comes next that this chunk fetches, in even steps.
    int64_t far = 0;
    for (int64_t n = 0; n < i.aheads; n++) far += net.taps[i.ahead + n].length;
    const bool across = i.grid_vectors > 1;
    const int64_t whole = across ? blocks : i.rows * i.repeats, done = repeat * i.rows;
    int64_t far_at = far * (across ? chunk.vector : done + chunk.row) / whole;
    const int64_t far_end = far * (across ? chunk.vector_end : done + chunk.row_end) / whole;
    const int64_t tiles_here = (chunk.vector_end - chunk.vector) * ((chunk.row_end - chunk.row) / rows_of(MAX_VECTORS) + 1);
    const int64_t far_share = (far_end - far_at) / tiles_here;
    t.pace = far ? std::min<int64_t>(64, far_share * Weight<In>::depth / depth + 1) : 0;
    t.ahead = reinterpret_cast<const char*>(out);
    for (int64_t block = chunk.vector; block < chunk.vector_end; block++) {
        const int64_t from = cut(i.vectors, blocks, block), width = cut(i.vectors, blocks, block + 1) - from;
        t.weights = weights + from * LANES * depth;
        t.bias = i.bias < 0 ? nullptr : net.floats + i.bias + from * LANES;
        t.out = out + from * LANES;
        t.add = add ? add + from * LANES : nullptr;
        const int64_t count = chunk.row_end - chunk.row;
        const int64_t tiles = (count + rows_of(width) - 1) / rows_of(width);
        for (int64_t tile = 0; tile < tiles; tile++) {
            const int64_t row = chunk.row + cut(count, tiles, tile), end = chunk.row + cut(count, tiles, tile + 1);
            t.in_rows = rows + row;
            t.out_rows = rows + i.out.rows + row;
            t.add_rows = rows + i.add.rows + row;
            if (far) {
                int64_t skip = far_at, n = 0;
                while (n + 1 < i.aheads && skip >= net.taps[i.ahead + n].length) skip -= net.taps[i.ahead + n++].length;
                const Map& map = net.taps[i.ahead + n].map;  // its `rows` is the stream
                t.ahead = locate(net, s, map) + map.rows * net.state_bytes + skip;
                far_at += t.pace * depth / Weight<In>::depth;
            }
            table.of[width - 1][end - row - 1](t);
        }
    }
}

// ---------------------------------------------------------------- depthwise convolutions

template <class T> struct Plane {  // a convolution of each channel alone, at one vector of channels
    const T* const* taps;
    const int32_t* const* rows;   // the table of each
    int64_t count, kernel_h, kernel_w;
    int64_t line, pixel, across;  // elements from one kernel row, result and kernel column to the next
    const float* weights;         // [tap][kernel_h][kernel_w][channels]
    int64_t channels;
    Vec bias;
    const T* add;
    T* out;
    int64_t activation;
};

// P neighbours at a time; returns their sum. K and S are width and stride of the kernel, where K > 0.
template <class T, int P, int K, int S>
__attribute__((noinline)) Vec plane_tile(const Plane<T>& g, int64_t row, int64_t c, const int32_t* out_rows, const int32_t* add_rows) {
    Vec sum[P];
    UNROLL for (int p = 0; p < P; p++) sum[p] = g.bias;
    const float* w = g.weights;
    for (int64_t tap = 0; tap < g.count; tap++) {
        const T* line = g.taps[tap] + g.rows[tap][row] + c;
        for (int64_t dy = 0; dy < g.kernel_h; dy++, line += g.line) {
            if constexpr (K > 0) {
                constexpr int N = (P - 1) * S + K;
                Vec weight[K];
                UNROLL for (int k = 0; k < K; k++, w += g.channels) weight[k] = load(w);
                const T* x = line;
                UNROLL for (int n = 0; n < N; n++, x += g.across) {
                    const Vec in = load(x);
                    UNROLL for (int p = 0; p < P; p++)
                        if (n - p * S >= 0 && n - p * S < K) sum[p] += in * weight[n - p * S];
                }
            } else {
                for (int64_t k = 0; k < g.kernel_w; k++, w += g.channels)
                    UNROLL for (int p = 0; p < P; p++) sum[p] += load(line + p * g.pixel + k * g.across) * load(w);
            }
        }
        UNROLL for (int p = 0; p < P; p++) __builtin_prefetch(line + p * g.pixel, 0, 2);  // of the next line
    }
    if (g.add) UNROLL for (int p = 0; p < P; p++) sum[p] += load(g.add + add_rows[p]);
    Vec total = {};
    UNROLL for (int p = 0; p < P; p++) total += sum[p];
    if (g.activation == LINEAR)
        UNROLL for (int p = 0; p < P; p++) store(g.out + out_rows[p], sum[p]);
    else
        for (int p = 0; p < P; p++) store(g.out + out_rows[p], activate(sum[p], g.activation));
    return total;
}

template <class T> using PlaneFunction = Vec (*)(const Plane<T>&, int64_t, int64_t, const int32_t*, const int32_t*);
template <class T, int P, int K, int S> constexpr std::array<PlaneFunction<T>, P> plane_tiles() {
    return []<size_t... n>(std::index_sequence<n...>) {
        return std::array<PlaneFunction<T>, P>{plane_tile<T, n + 1, K, S>...};
    }(std::make_index_sequence<P>());
}

template <class T, int K, int S>
void planes(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    const T* sources[32];
    const int32_t *rows = net.rows.data(), *in_rows[32];
    for (int64_t n = 0; n < i.taps; n++) {
        const Map& map = net.taps[i.tap + n].map;
        sources[n] = reinterpret_cast<const T*>(locate(net, s, map)), in_rows[n] = rows + map.rows;
    }
    const int32_t *out_rows = rows + i.out.rows, *add_rows = rows + i.add.rows;
    T* out = reinterpret_cast<T*>(locate(net, s, i.out));
    const T* add = reinterpret_cast<const T*>(locate(net, s, i.add));
    const int64_t channels = i.vectors * LANES;
    float* sums = i.sums < 0 ? nullptr : reinterpret_cast<float*>(s.scratch + i.sums) + chunk.part * channels;
    constexpr int P = REGISTERS == 32 ? (S == 1 ? 8 : 5) : (S == 1 ? 5 : 3);
    static constexpr auto tiles = plane_tiles<T, P, K, S>();
    const int64_t from = chunk.vector * LANES, to = chunk.vector_end * LANES;
    Plane<T> g = {sources, in_rows, i.taps, i.kernel_h, i.kernel_w, i.dilation_h * i.pitch, i.stride_w * i.step, i.dilation_w * i.step};
    g.channels = channels, g.activation = i.activation, g.add = nullptr;
    // The past frames were last touched a step ago: what is not asked for early is waited for.
    for (int64_t n = 0; n < i.taps; n++)
        for (int64_t dy = 0; dy < i.kernel_h; dy++)
            for (int64_t x = 0; x < i.pitch; x += channels) {
                const T* at = sources[n] + in_rows[n][chunk.row] + dy * g.line + x;
                for (int64_t c = from; c < to; c += 64 / sizeof(T)) __builtin_prefetch(at + c, 0, 2);
            }
    if (sums) std::memset(sums + from, 0, (to - from) * sizeof *sums);
    for (int64_t line = chunk.row; line < chunk.row_end; line += i.width)
        for (int64_t c = from; c < to; c += LANES) {
            g.weights = reinterpret_cast<const float*>(net.packed + i.weights) + c;
            g.bias = i.bias < 0 ? Vec{} : load(net.floats + i.bias + c);
            if (add) g.add = add + c;
            g.out = out + c;
            Vec total = {};
            for (int64_t row = line, end = line + i.width, n; row < end; row += n) {
                n = std::min<int64_t>(P, end - row);
                if (end - row > P && end - row < 2 * P) n = (end - row + 1) / 2;  // two alike at the end
                total += tiles[n - 1](g, row, c, out_rows + row, add_rows + row);
            }
            if (sums) store(sums + c, load(sums + c) + total);
        }
}

// A 3x3x3 convolution of each channel alone that keeps sums: a line is read once for all three
// kernel slices. The first completes a result, the second and third go on as the new sums.
template <class T> struct Sums {
    const T* x;
    int64_t kernel_h, line, step;
    const float* weights;
    int64_t channels;
    Vec bias;
    const T* add[2];
    T* out[3];
    const int32_t *add_rows[2], *out_rows[3];
    int64_t activation;
    bool early;  // whether sums that go on are padding, which is 0
};

template <class T, int P, int S>
__attribute__((noinline)) Vec sums_tile(const Sums<T>& g, int64_t at, int64_t row) {
    constexpr int N = (P - 1) * S + 3;
    Vec sum[3][P];
    UNROLL for (int p = 0; p < P; p++) sum[0][p] = g.bias, sum[1][p] = sum[2][p] = Vec{};
    const T* line = g.x + at;
    const float* w = g.weights;
    for (int64_t dy = 0; dy < g.kernel_h; dy++, line += g.line, w += 3 * g.channels) {
        const T* x = line;
        UNROLL for (int n = 0; n < N; n++, x += g.step) {
            const Vec in = load(x);
            UNROLL for (int p = 0; p < P; p++)
                if (n - p * S >= 0 && n - p * S < 3)
                    UNROLL for (int t = 0; t < 3; t++)
                        sum[t][p] += in * load(w + (t * g.kernel_h * 3 + n - p * S) * g.channels);
        }
    }
    Vec total = {};
    for (int p = 0; p < P; p++) {
        UNROLL for (int t = 0; t < 2; t++) sum[t][p] += load(g.add[t] + g.add_rows[t][row + p]);
        UNROLL for (int t = 1; t < 3; t++) store(g.out[t] + g.out_rows[t][row + p], g.early ? Vec{} : sum[t][p]);
        const Vec y = activate(sum[0][p], g.activation);
        store(g.out[0] + g.out_rows[0][row + p], y);
        total += y;
    }
    return total;
}

template <class T, int S> void sums_of(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    constexpr int P = REGISTERS == 32 ? 4 : 2;
    typedef Vec (*Function)(const Sums<T>&, int64_t, int64_t);
    static constexpr Function tiles[] = {sums_tile<T, 1, S>, sums_tile<T, 2, S>, sums_tile<T, 3, S>, sums_tile<T, 4, S>};
    const Tap* taps = &net.taps[i.tap];  // input, then sums to add to and where the new ones go
    const int32_t *rows = net.rows.data(), *in_rows = rows + taps[0].map.rows;
    const Map* adds[] = {&taps[1].map, &taps[2].map};
    const Map* outs[] = {&i.out, &taps[3].map, &taps[4].map};
    const int64_t channels = i.vectors * LANES;
    float* sums = i.sums < 0 ? nullptr : reinterpret_cast<float*>(s.scratch + i.sums) + chunk.part * channels;
    Sums<T> g = {};
    g.kernel_h = i.kernel_h, g.line = i.dilation_h * i.pitch, g.step = i.step, g.channels = channels;
    g.activation = i.activation, g.early = s.age < i.first_sums;
    for (int t = 0; t < 2; t++) g.add_rows[t] = rows + adds[t]->rows;
    for (int t = 0; t < 3; t++) g.out_rows[t] = rows + outs[t]->rows;
    if (sums) std::memset(sums + chunk.vector * LANES, 0, (chunk.vector_end - chunk.vector) * LANES * sizeof *sums);
    for (int64_t line = chunk.row; line < chunk.row_end; line += i.width)
        for (int64_t c = chunk.vector * LANES; c < chunk.vector_end * LANES; c += LANES) {
            g.x = reinterpret_cast<const T*>(locate(net, s, taps[0].map));
            g.weights = reinterpret_cast<const float*>(net.packed + i.weights) + c;
            g.bias = i.bias < 0 ? Vec{} : load(net.floats + i.bias + c);
            for (int t = 0; t < 2; t++) g.add[t] = reinterpret_cast<const T*>(locate(net, s, *adds[t])) + c;
            for (int t = 0; t < 3; t++) g.out[t] = reinterpret_cast<T*>(locate(net, s, *outs[t])) + c;
            Vec total = {};
            for (int64_t row = line, end = line + i.width, n; row < end; row += n) {
                n = std::min<int64_t>(P, end - row);
                total += tiles[n - 1](g, in_rows[row] + c, row);
            }
            if (sums) store(sums + c, load(sums + c) + total);
        }
}

template <class T> void sums(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    i.stride_w == 1 ? sums_of<T, 1>(net, s, i, chunk) : sums_of<T, 2>(net, s, i, chunk);
}

template <class T> void depthwise(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    const bool near = i.dilation_w == 1;
    if (near && i.kernel_w == 3 && i.stride_w == 1) return planes<T, 3, 1>(net, s, i, chunk);
    if (near && i.kernel_w == 3 && i.stride_w == 2) return planes<T, 3, 2>(net, s, i, chunk);
    if (i.kernel_w == 1 && i.stride_w == 1) return planes<T, 1, 1>(net, s, i, chunk);
    planes<T, 0, 1>(net, s, i, chunk);
}

// ---------------------------------------------------------------- the gate

// Each thread computes the gates of all streams for itself, which is cheaper than waiting.
void compute_gates(const Net& net, const Stream& s, const Instruction& i, float* gates) {
    const int64_t wide = i.vectors * LANES, narrow = i.inner;
    const float* sums = reinterpret_cast<const float*>(s.scratch + i.sums);
    const float* w1 = net.floats + i.weights;  // [narrow][wide], then biases, then [narrow][wide]
    const float *b1 = w1 + narrow * wide, *w2 = b1 + narrow, *b2 = w2 + narrow * wide;
    const float per_pixel = 1.0f / float(i.rows / net.batch);
    for (int64_t n = 0; n < net.batch; n++) {
        float* gate = gates + n * wide;
        for (int64_t c = 0; c < wide; c += LANES) {
            Vec total = {};
            for (int64_t p = 0; p < i.parts; p++) total += load(sums + (n * i.parts + p) * wide + c);
            store(gate + c, total * per_pixel);
        }
        float* inner = gates + net.batch * wide;
        for (int64_t j = 0; j < narrow; j++) {
            Vec total = {};
            for (int64_t c = 0; c < wide; c += LANES) total += load(gate + c) * load(w1 + j * wide + c);
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

template <class T>
void scale(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk, const float* gates) {
    T* out = reinterpret_cast<T*>(locate(net, s, i.out));
    const int32_t* rows = net.rows.data() + i.out.rows;
    const int64_t pixels = i.rows / net.batch;
    for (int64_t row = chunk.row; row < chunk.row_end; row++) {
        const float* gate = gates + row / pixels * i.vectors * LANES;
        for (int64_t c = 0; c < i.vectors * LANES; c += LANES) {
            T* at = out + rows[row] + c;
            store(at, activate(load(at) * load(gate + c), i.activation));
        }
    }
}

// ---------------------------------------------------------------- the rest

inline void set(float* p, float x) { *p = x; }
inline void set(Half* p, float x) {
    Half half[LANES];
    store(half, spread(x));
    *p = half[0];
}

template <class T> void input(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    const int64_t pixels = i.height * i.width;
    for (int64_t row = chunk.row; row < chunk.row_end; row++) {  // a row of an image
        const int64_t from = row * i.width % pixels;
        const float* in = s.frame + row * i.width / pixels * i.channels * pixels + from;
        T* out = reinterpret_cast<T*>(locate(net, s, i.out)) + net.rows[i.out.rows + row * i.width];
        for (int64_t x = 0; x < i.width; x++, in++, out += i.step)
            for (int64_t c = 0; c < i.channels; c++) set(out + c, in[c * pixels]);
    }
}

template <class T> void pool(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    T* out = reinterpret_cast<T*>(locate(net, s, i.out));
    const int32_t* out_rows = net.rows.data() + i.out.rows;
    const Vec lowest = spread(-std::numeric_limits<float>::infinity());
    for (int64_t row = chunk.row; row < chunk.row_end; row++) {
        const int64_t y = row / i.width % i.height * i.stride_h - i.pad_h, x = row % i.width * i.stride_w - i.pad_w;
        for (int64_t c = 0; c < i.vectors * LANES; c += LANES) {
            Vec best = lowest;
            for (int64_t tap = 0; tap < i.taps; tap++) {
                const Map& map = net.taps[i.tap + tap].map;
                const T* in = reinterpret_cast<const T*>(locate(net, s, map)) + net.rows[map.rows + row] + c;
                for (int64_t dy = 0; dy < i.kernel_h; dy++)
                    for (int64_t dx = 0; dx < i.kernel_w; dx++) {
                        const int64_t v = y + dy * i.dilation_h, u = x + dx * i.dilation_w;
                        if (v < 0 || v >= i.in_height || u < 0 || u >= i.in_width) continue;
                        Vec value = load(in + dy * i.dilation_h * i.pitch + dx * i.dilation_w * i.step);
                        best = value > best || value != value ? value : best;
                    }
            }
            store(out + out_rows[row] + c, best);
        }
    }
}

template <class T> void mean(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    const T* in = reinterpret_cast<const T*>(locate(net, s, net.taps[i.tap].map));
    const int32_t *in_rows = net.rows.data() + net.taps[i.tap].map.rows, *out_rows = net.rows.data() + i.out.rows;
    float* out = reinterpret_cast<float*>(locate(net, s, i.out));
    const int64_t pixels = i.in_height * i.in_width;
    for (int64_t row = chunk.row; row < chunk.row_end; row++)
        for (int64_t c = chunk.vector * LANES; c < chunk.vector_end * LANES; c += LANES) {
            Vec total = {};
            for (int64_t p = row * pixels; p < (row + 1) * pixels; p++) total += load(in + in_rows[p] + c);
            store(out + out_rows[row] + c, total / float(pixels));
        }
}

void window(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    float* out = reinterpret_cast<float*>(locate(net, s, i.out));
    const int32_t *in_rows = net.rows.data() + net.taps[i.tap].map.rows, *out_rows = net.rows.data() + i.out.rows;
    for (int64_t row = chunk.row; row < chunk.row_end; row++)
        for (int64_t c = chunk.vector * LANES; c < chunk.vector_end * LANES; c += LANES) {
            Vec total = {};
            for (int64_t tap = 0; tap < i.taps; tap++)
                total += load(reinterpret_cast<const float*>(locate(net, s, net.taps[i.tap + tap].map)) + in_rows[row] + c);
            store(out + out_rows[row] + c, total / float(i.taps));
        }
}

template <class In, class Out> void copy(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    const In* in = reinterpret_cast<const In*>(locate(net, s, net.taps[i.tap].map));
    const int32_t *in_rows = net.rows.data() + net.taps[i.tap].map.rows, *out_rows = net.rows.data() + i.out.rows;
    const int32_t* add_rows = net.rows.data() + i.add.rows;
    Out* out = reinterpret_cast<Out*>(locate(net, s, i.out));
    const Out* add = reinterpret_cast<const Out*>(locate(net, s, i.add));
    for (int64_t row = chunk.row; row < chunk.row_end; row++)
        for (int64_t c = 0; c < i.vectors * LANES; c += LANES) {
            Vec y = load(in + in_rows[row] + c);
            if (add) y += load(add + add_rows[row] + c);
            store(out + out_rows[row] + c, activate(y, i.activation));
        }
}

// ---------------------------------------------------------------- Winograd's F(4x4, 3x3)

// https://arxiv.org/abs/1509.09308: 36 products for 16 results in the place of 144. A tile of 6x6
// inputs becomes 36 numbers, of which each goes through a product of its own with those of all
// tiles; 4x4 results come back from 36 sums.

inline void tile_in(const Vec* x, int64_t from, Vec* y, int64_t to) {
    const Vec a = x[0], b = x[from], c = x[2 * from], d = x[3 * from], e = x[4 * from], f = x[5 * from];
    y[0] = 4.0f * a - 5.0f * c + e;
    y[to] = d + e - 4.0f * (b + c);
    y[2 * to] = e - d + 4.0f * (b - c);
    y[3 * to] = e - c + 2.0f * (d - b);
    y[4 * to] = e - c + 2.0f * (b - d);
    y[5 * to] = 4.0f * b - 5.0f * d + f;
}
inline void tile_out(const Vec* x, int64_t from, Vec* y, int64_t to) {
    const Vec a = x[0], b = x[from], c = x[2 * from], d = x[3 * from], e = x[4 * from], f = x[5 * from];
    const Vec sum = b + c, difference = b - c, more = d + e, less = d - e;
    y[0] = a + sum + more;
    y[to] = difference + 2.0f * less;
    y[2 * to] = sum + 4.0f * more;
    y[3 * to] = difference + 8.0f * less + f;
}

void tiles_in(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    const float* in = reinterpret_cast<const float*>(locate(net, s, net.taps[i.tap].map));
    const int32_t *in_rows = net.rows.data() + net.taps[i.tap].map.rows, *out_rows = net.rows.data() + i.out.rows;
    float* out = reinterpret_cast<float*>(locate(net, s, i.out));
    for (int64_t row = chunk.row; row < chunk.row_end; row++)
        for (int64_t c = 0; c < i.vectors * LANES; c += LANES) {
            Vec x[36], y[36];
            for (int64_t v = 0; v < 6; v++)
                for (int64_t u = 0; u < 6; u++)
                    x[6 * v + u] = load(in + in_rows[row] + v * i.pitch + u * i.step + c);
            for (int64_t n = 0; n < 6; n++) tile_in(x + n, 6, y + n, 6);
            for (int64_t n = 0; n < 6; n++) tile_in(y + 6 * n, 1, x + 6 * n, 1);
            for (int64_t n = 0; n < 36; n++) store(out + n * i.out_repeat + out_rows[row] + c, x[n]);
        }
}

void tiles_out(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    const float* in = reinterpret_cast<const float*>(locate(net, s, net.taps[i.tap].map));
    const int32_t *in_rows = net.rows.data() + net.taps[i.tap].map.rows, *out_rows = net.rows.data() + i.out.rows;
    const int32_t* add_rows = net.rows.data() + i.add.rows;
    float* out = reinterpret_cast<float*>(locate(net, s, i.out));
    const float* add = reinterpret_cast<const float*>(locate(net, s, i.add));
    const bool early = s.age < i.first;
    const int64_t across = (i.width + 3) / 4, down = (i.height + 3) / 4;
    for (int64_t row = chunk.row; row < chunk.row_end; row++) {
        const int64_t top = row / across % down * 4, left = row % across * 4, image = row / (across * down);
        for (int64_t c = 0; c < i.vectors * LANES; c += LANES) {
            Vec x[36], y[24];
            for (int64_t n = 0; n < 36; n++) x[n] = load(in + n * i.in_repeat + in_rows[row] + c);
            for (int64_t n = 0; n < 6; n++) tile_out(x + n, 6, y + n, 6);
            for (int64_t n = 0; n < 4; n++) tile_out(y + 6 * n, 1, x + 4 * n, 1);
            for (int64_t v = 0; v < std::min<int64_t>(4, i.height - top); v++)
                for (int64_t u = 0; u < std::min<int64_t>(4, i.width - left); u++) {
                    const int64_t pixel = (image * i.height + top + v) * i.width + left + u;
                    Vec sum = x[4 * v + u] + load(net.floats + i.bias + c);
                    if (add) sum += load(add + add_rows[pixel] + c);
                    store(out + out_rows[pixel] + c, early ? Vec{} : activate(sum, i.activation));
                }
        }
    }
}

// ---------------------------------------------------------------- running

template <class T> void fill(const Net& net, const Stream& s, const Instruction& i, const Chunk& chunk) {
    T* out = reinterpret_cast<T*>(locate(net, s, i.out));
    const int32_t* rows = net.rows.data() + i.out.rows;
    const Vec value = spread(i.infinite ? -std::numeric_limits<float>::infinity() : 0.0f);
    const int64_t from = i.kind == PRODUCT ? 0 : chunk.vector, to = i.kind == PRODUCT ? i.vectors : chunk.vector_end;
    for (int64_t row = chunk.row; row < chunk.row_end; row++)
        for (int64_t v = from; v < to; v++) store(out + rows[row] + v * LANES, value);
}

template <class In, class Out> void run_typed(const Net& net, const Stream& s, const Instruction& i, const Chunk& c, float* gates) {
    if (s.age < i.first && i.kind != TILES_OUT) return fill<Out>(net, s, i, c);
    switch (i.kind) {
        case INPUT: return input<Out>(net, s, i, c);
        case PRODUCT: return product<In, Out>(net, s, i, c);
        case DEPTHWISE: return depthwise<Out>(net, s, i, c);
        case SUMS: return sums<Out>(net, s, i, c);
        case SCALE: return scale<Out>(net, s, i, c, gates);
        case POOL: return pool<Out>(net, s, i, c);
        case MEAN: return mean<In>(net, s, i, c);
        case WINDOW: return window(net, s, i, c);
        case COPY: return copy<In, Out>(net, s, i, c);
        case TILES_IN: return tiles_in(net, s, i, c);
        default: return tiles_out(net, s, i, c);
    }
}

void run_chunk(const Net& net, const Stream& s, const Instruction& i, int64_t number, float* gates) {
    const int64_t per_part = i.grid_rows * i.grid_vectors, part = number / per_part;
    const int64_t of_rows = number % per_part / i.grid_vectors, of_vectors = number % i.grid_vectors;
    int64_t rows = i.rows, units = 1, columns = i.vectors;
    if (i.kind == PRODUCT) columns = (i.vectors + MAX_VECTORS - 1) / MAX_VECTORS;
    Chunk c;
    c.part = part;
    if (i.kind == DEPTHWISE || i.kind == SUMS) {  // whole lines, of one image
        units = i.width, c.part = number / i.grid_vectors;
        const int64_t image = of_rows / i.parts, within = of_rows % i.parts;
        c.row = (image * i.height + cut(i.height, i.parts, within)) * units;
        c.row_end = (image * i.height + cut(i.height, i.parts, within + 1)) * units;
    } else {
        c.row = cut(rows, i.grid_rows, of_rows), c.row_end = cut(rows, i.grid_rows, of_rows + 1);
    }
    c.vector = cut(columns, i.grid_vectors, of_vectors);
    c.vector_end = cut(columns, i.grid_vectors, of_vectors + 1);
    if (i.in_half && i.out_half) run_typed<Half, Half>(net, s, i, c, gates);
    else if (i.in_half) run_typed<Half, float>(net, s, i, c, gates);
    else if (i.out_half) run_typed<float, Half>(net, s, i, c, gates);
    else run_typed<float, float>(net, s, i, c, gates);
}

inline int64_t share(int64_t chunks, int threads, int thread) {  // the first chunk of a thread
    return (chunks * thread + threads - 1) / threads;
}
inline int64_t chunks(const Instruction& i) { return i.repeats * i.grid_rows * i.grid_vectors; }

void run_alone(const Net& net, const Stream& s, const std::vector<Instruction>& list) {
    float* gates = reinterpret_cast<float*>(s.scratch + net.scratch_bytes);
    for (const Instruction& i : list) {
        if (i.kind == SCALE) compute_gates(net, s, i, gates);
        for (int64_t n = 0; n < chunks(i); n++) run_chunk(net, s, i, n, gates);
    }
}

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

constexpr size_t HUGE_PAGE = 1 << 21;
typedef std::chrono::steady_clock Clock;

// Waits until `atomic` has another value than `old`: spins for some microseconds, then sleeps.
inline void await_change(std::atomic<uint32_t>& atomic, uint32_t old, int microseconds) {
    const auto until = Clock::now() + std::chrono::microseconds(microseconds);
    do {
        for (int n = 0; n < 64; n++) {
            if (atomic.load(std::memory_order_acquire) != old) return;
            pause();
        }
    } while (Clock::now() < until);
    atomic.wait(old, std::memory_order_acquire);
}

constexpr int SPIN_WITHIN = 50, SPIN_BETWEEN = 100;  // microseconds

// Threads that share the chunks of an instruction. No thread is waited for but those that are at
// work on a chunk: one that the system keeps from running costs its share, not the step. A call has
// a number, with which every chunk is claimed, so that a thread that comes late finds nothing.
struct Pool {
    struct alignas(64) Counter { std::atomic<uint64_t> next{0}; };  // call << 32 | the next chunk
    struct alignas(64) Done { std::atomic<uint32_t> left{0}; };      // chunks not yet done
    const Net& net;
    const int threads;
    const pid_t process;
    std::vector<Counter> counters;  // [instruction][thread]
    std::vector<Done> done;
    std::atomic<uint32_t> call{0};
    std::atomic<bool> stopping{false};
    std::mutex lock;
    Stream stream;
    const std::vector<Instruction>* list = nullptr;
    std::vector<std::thread> workers;

    Pool(const Net& net, size_t longest)
        : net(net), threads(net.threads), process(getpid()), counters(longest * net.threads), done(longest) {
        for (int t = 1; t < threads; t++) workers.emplace_back([this, t] { serve(t); });
    }
    ~Pool() {
        if (process != getpid()) {  // after a fork the threads are not there
            for (auto& worker : workers) worker.detach();
            return;
        }
        stopping = true;
        call.fetch_add(1);
        call.notify_all();
        for (auto& instruction : done) instruction.left = 0, instruction.left.notify_all();
        for (auto& worker : workers) worker.join();
    }
    void run(const Stream& s, const std::vector<Instruction>& instructions) {
        const uint32_t number = call.load() + 1;
        stream = s, list = &instructions;
        for (size_t i = 0; i < instructions.size(); i++) {
            const uint64_t count = chunks(instructions[i]);
            done[i].left.store(count, std::memory_order_relaxed);
            for (int t = 0; t < threads; t++)
                counters[i * threads + t].next.store(uint64_t(number) << 32 | share(count, threads, t), std::memory_order_relaxed);
        }
        call.store(number, std::memory_order_release);
        call.notify_all();
        work(number, 0, s, instructions);
    }
    void serve(int thread) {
        uint32_t seen = 0;
        while (!stopping) {
            await_change(call, seen, SPIN_BETWEEN);
            seen = call.load(std::memory_order_acquire);
            if (stopping) return;
            Stream s = stream;
            auto instructions = list;
            if (instructions && call.load(std::memory_order_acquire) == seen) work(seen, thread, s, *instructions);
        }
    }
    bool claim(uint32_t number, size_t i, int of, uint64_t end, uint64_t& chunk) {
        auto& next = counters[i * threads + of].next;
        uint64_t value = next.load(std::memory_order_acquire);
        while (value >> 32 == number && (value & 0xffffffff) < end)
            if (next.compare_exchange_weak(value, value + 1, std::memory_order_acq_rel)) {
                chunk = value & 0xffffffff;
                return true;
            }
        return false;
    }
    void work(uint32_t number, int thread, const Stream& s, const std::vector<Instruction>& instructions) {
        float* gates = reinterpret_cast<float*>(s.scratch + net.scratch_bytes) + thread * net.gate_floats;
        for (size_t i = 0; i < instructions.size(); i++) {
            const Instruction& instruction = instructions[i];
            const int64_t count = chunks(instruction);
            bool gated = instruction.kind != SCALE;
            for (int n = 0; n < threads; n++) {
                const int of = (thread + n) % threads;
                uint64_t chunk;
                while (claim(number, i, of, share(count, threads, of + 1), chunk)) {
                    if (!gated) compute_gates(net, s, instruction, gates), gated = true;
                    run_chunk(net, s, instruction, chunk, gates);
                    if (done[i].left.fetch_sub(1, std::memory_order_acq_rel) == 1) done[i].left.notify_all();
                }
            }
            uint32_t left;
            while ((left = done[i].left.load(std::memory_order_acquire)) != 0) {
                if (call.load(std::memory_order_acquire) != number) return;
                await_change(done[i].left, left, SPIN_WITHIN);
            }
            if (thread && call.load(std::memory_order_acquire) != number) return;
        }
    }
};

}  // namespace

// ---------------------------------------------------------------- what Python calls

extern "C" {

// Asks for large pages: with small ones, looking up addresses costs more than the arithmetic.
void co3d_advise(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
    const uintptr_t from = (reinterpret_cast<uintptr_t>(memory) + 4095) / 4096 * 4096;
    const uintptr_t to = (reinterpret_cast<uintptr_t>(memory) + bytes) / 4096 * 4096;
    if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#endif
}

int co3d_lanes() { return LANES; }
int co3d_max_vectors() { return MAX_VECTORS; }
int co3d_bfloat16() { return BFLOAT16; }
int64_t co3d_instruction_bytes() { return sizeof(Instruction); }

struct Program {
    const Instruction* instructions;  // of all phases
    const int32_t* puts;              // rings into which each phase puts something
    const int64_t* counts;            // of both, for each phase
    int64_t phases;
    const Tap* taps;
    int64_t tap_count;
    const Ring* rings;
    int64_t ring_count;
    const int32_t* rows;
    int64_t row_count;
    const char* packed;               // kept by the caller, as are `floats`; all else is copied
    const float* floats;
    int64_t batch, state_bytes, scratch_bytes, gate_floats, threads;
};

void* co3d_create(const Program* program) {
    const Program& p = *program;
    auto net = new Net;
    size_t longest = 0;
    const Instruction* instructions = p.instructions;
    const int32_t* puts = p.puts;
    for (int64_t phase = 0; phase < p.phases; phase++) {
        const int64_t *counts = p.counts + 2 * phase;
        net->phases.emplace_back(instructions, instructions + counts[0]);
        net->puts.emplace_back(puts, puts + counts[1]);
        instructions += counts[0], puts += counts[1];
        longest = std::max(longest, net->phases.back().size());
    }
    net->taps.assign(p.taps, p.taps + p.tap_count);
    net->rings.assign(p.rings, p.rings + p.ring_count);
    net->rows.assign(p.rows, p.rows + p.row_count);
    net->packed = p.packed, net->floats = p.floats, net->batch = p.batch, net->threads = p.threads;
    net->state_bytes = p.state_bytes, net->scratch_bytes = p.scratch_bytes, net->gate_floats = p.gate_floats;
    if (net->threads > 1) net->pool = new Pool(*net, longest);
    return net;
}

void co3d_destroy(void* handle) {
    auto net = static_cast<Net*>(handle);
    delete net->pool;
    delete net;
}

// One step; 0, or 1 where the streams of the batch have other heads, or 2 without memory.
int co3d_step(void* handle, const float* frame, char* state, int32_t* heads, float* logits, int64_t phase, int64_t age) {
    auto& net = *static_cast<Net*>(handle);
    const size_t rings = net.rings.size();
    for (int64_t b = 1; b < net.batch; b++)
        if (std::memcmp(heads, heads + b * rings, rings * sizeof *heads)) return 1;
    std::unique_ptr<char, decltype(&std::free)> scratch(nullptr, &std::free);
    {
        std::lock_guard<std::mutex> guard(net.lock);
        if (!net.spare.empty()) scratch = std::move(net.spare.back()), net.spare.pop_back();
    }
    if (!scratch) {
        const size_t bytes = (net.scratch_bytes + net.gate_floats * 4 * net.threads + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        scratch.reset(static_cast<char*>(std::aligned_alloc(HUGE_PAGE, bytes)));
        if (!scratch) return 2;
        co3d_advise(scratch.get(), bytes);
        std::memset(scratch.get(), 0, bytes);  // borders stay zero for ever
    }
    for (int32_t ring : net.puts[phase])
        for (int64_t b = 0; b < net.batch; b++) {
            int32_t& head = heads[b * rings + ring];
            head = (head + 1) % net.rings[ring].slots;
        }
    const Stream stream = {frame, state, heads, logits, scratch.get(), age};
    Pool* pool = net.pool;
    // A second caller at the same time, or a child of a fork, works alone.
    if (pool && pool->process == getpid() && pool->lock.try_lock()) {
        pool->run(stream, net.phases[phase]);
        pool->lock.unlock();
    } else {
        run_alone(net, stream, net.phases[phase]);
    }
    std::lock_guard<std::mutex> guard(net.lock);
    net.spare.push_back(std::move(scratch));
    return 0;
}

}  // extern "C"
