package transport

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/xferbench/xferbench/cgo/mem"
)

// What one session, with all its initiators, may have open at a time.
const (
	maxBuffers       = 64
	maxEndpoints     = 256
	maxSessionLanes  = 4 * MaxLanes
	maxPlans         = 1 << 16
	maxSessionPieces = 2 * MaxPieces // of all plans: 800 MB
	maxID            = 1 << 30       // of a buffer, an endpoint or a plan
	maxAddress       = 4 << 20       // bytes of a peer's address
	maxName          = 1 << 12       // bytes of a plan's name
)

// Served is a [Side] for an initiator in another process. It checks every
// request before the side sees it, and it is a target whatever the request says.
//
// Several initiators may share a side, each with a Served of its own: see
// [Served.Join]. Each numbers its buffers, endpoints and plans as it likes and
// reaches no other's; the limits hold for all together. The methods of all of them
// are for one goroutine at a time.
type Served struct {
	*Side
	// Trusted: the initiator is the user who started this side. It may name any
	// provider and set any option.
	Trusted bool

	common  *common
	buffers map[int]int // by the initiator's number, the side's
	opened  map[int]*servedEndpoint
	laid    map[int]*servedPlan
	sealed  bool
	told    []Connection // that the initiator has, as it said when it sealed
}

// common is what the initiators of a side have in common.
type common struct {
	all                                      []*Served
	buffers, endpoints, lanes, plans, pieces int
}

// servedEndpoint is how far an endpoint is, so that no library is called out of
// turn.
type servedEndpoint struct {
	id                           int // the side's
	lanes                        int
	peers                        []string
	registered, connected, armed bool
	used                         bool // armed at least once
}

type servedPlan struct{ id, endpoint, pieces int }

// session is what s has in common with other initiators.
func (s *Served) session() *common {
	if s.common == nil {
		s.common = &common{all: []*Served{s}}
	}
	return s.common
}

// Join gives a further initiator its own way to the side.
func (s *Served) Join() *Served {
	c := s.session()
	v := &Served{Side: s.Side, Trusted: s.Trusted, common: c}
	c.all = append(c.all, v)
	return v
}

// Leave closes what this initiator has opened. What others have stays.
func (s *Served) Leave() error {
	var errs []error
	for id := range s.opened {
		errs = append(errs, s.shut(id))
	}
	for n, id := range s.buffers {
		errs = append(errs, s.release(id))
		delete(s.buffers, n)
		s.session().buffers--
	}
	c := s.session()
	c.all = slices.DeleteFunc(c.all, func(v *Served) bool { return v == s })
	return errors.Join(errs...)
}

// checkID refuses a number that no run gives.
func checkID(what string, id int) error {
	if id < 0 || id > maxID {
		return refuse("%s %d: want 0 to %d", what, id, maxID)
	}
	return nil
}

func (s *Served) endpoint(id int) (*servedEndpoint, error) {
	if e := s.opened[id]; e != nil {
		return e, nil
	}
	return nil, refuse("endpoint %d is not open", id)
}

// planned is a plan and its endpoint, ready for transfers.
func (s *Served) planned(id int) (*servedPlan, *servedEndpoint, error) {
	p := s.laid[id]
	if p == nil {
		return nil, nil, refuse("plan %d does not exist", id)
	}
	e, err := s.endpoint(p.endpoint)
	if err == nil && !e.connected {
		err = refuse("endpoint %d is not connected", p.endpoint)
	}
	return p, e, err
}

// Memory checks a request and allocates the buffer.
func (s *Served) Memory(ctx context.Context, r MemoryRequest) (MemoryReply, error) {
	switch {
	case !slices.Contains(mem.Kinds(), r.Kind):
		return MemoryReply{}, refuse("memory kind %.40q: want one of %v", r.Kind, mem.Kinds())
	case r.Device < 0 || r.Device > maxDevice:
		return MemoryReply{}, refuse("device %d: want 0 to %d", r.Device, maxDevice)
	case r.Bytes == 0:
		return MemoryReply{}, refuse("a buffer of 0 bytes")
	case s.session().buffers >= maxBuffers:
		return MemoryReply{}, refuse("%d buffers: want no more at a time", maxBuffers)
	}
	if err := checkID("buffer", r.Buffer); err != nil {
		return MemoryReply{}, err
	}
	if _, has := s.buffers[r.Buffer]; has {
		return MemoryReply{}, refuse("buffer %d is allocated already", r.Buffer)
	}
	n := r.Buffer
	r.Buffer = s.number()
	rep, err := s.Side.Memory(ctx, r)
	if err != nil {
		return rep, err
	}
	if s.buffers == nil {
		s.buffers = map[int]int{}
	}
	s.buffers[n] = r.Buffer
	s.session().buffers++
	return rep, nil
}

// Routes checks a request.
func (s *Served) Routes(ctx context.Context, r RoutesRequest) (RoutesReply, error) {
	if err := checkLimits(Config{Bind: r.Bind}); err != nil {
		return RoutesReply{}, refuse("%w", err)
	}
	return s.Side.Routes(ctx, r)
}

// Seal checks a request.
func (s *Served) Seal(ctx context.Context, r SealRequest) (SealReply, error) {
	if len(r.Connections) > maxConnections {
		return SealReply{}, refuse("%d connections: want at most %d", len(r.Connections), maxConnections)
	}
	s.sealed, s.told = true, r.Connections
	var known []Connection
	var later []string
	for _, v := range s.session().all {
		known = append(known, v.told...)
		if !v.sealed {
			later = append(later, v.peers()...)
		}
	}
	return s.Side.seal(ctx, known, s.peers(), later)
}

// peers are the addresses from which this initiator's endpoints are reached.
func (s *Served) peers() []string {
	var out []string
	for _, e := range s.opened {
		out = append(out, e.peers...)
	}
	return out
}

// Open checks a request and opens the endpoint as a target's, with this side's
// library.
func (s *Served) Open(ctx context.Context, r OpenRequest) (OpenReply, error) {
	r.Config.Role, r.Config.Library = Target, ""
	if err := s.checkOpen(r); err != nil {
		return OpenReply{}, err
	}
	id := r.Endpoint
	r.Endpoint = s.number()
	rep, err := s.Side.Open(ctx, r)
	if err != nil {
		return rep, err
	}
	if s.opened == nil {
		s.opened = map[int]*servedEndpoint{}
	}
	c := s.session()
	s.opened[id] = &servedEndpoint{id: r.Endpoint, lanes: rep.Lanes, peers: s.Side.endpoints[r.Endpoint].peers}
	c.endpoints++
	s.sealed = false
	if c.lanes += rep.Lanes; c.lanes > maxSessionLanes {
		err := refuse("%d lanes in all: want at most %d at a time", c.lanes, maxSessionLanes)
		return OpenReply{}, joined(err, s.shut(id))
	}
	return rep, nil
}

func joined(err, then error) error {
	if then != nil {
		return fmt.Errorf("%w; %w", err, then)
	}
	return err
}

func (s *Served) checkOpen(r OpenRequest) error {
	if err := checkID("endpoint", r.Endpoint); err != nil {
		return err
	}
	c := r.Config
	if err := CheckConfig(c); err != nil {
		return refuse("provider %.40q: %w", c.Provider, err)
	}
	switch {
	case s.opened[r.Endpoint] != nil:
		return refuse("endpoint %d is open already", r.Endpoint)
	case s.session().endpoints >= maxEndpoints:
		return refuse("%d endpoints are open: want no more at a time", maxEndpoints)
	case c.Timeout == 0:
		return refuse("an endpoint needs a timeout")
	case c.Provider == "memcpy":
		return refuse("memcpy has no second side")
	case s.Trusted:
		return nil
	}
	return checkForeign(c)
}

// Names that only choose among what a library has loaded by itself.
var (
	ucxTransports  = regexp.MustCompile(`^ucx(:\^?\\?[\w:]+(,\\?[\w:]+)*)?$`)
	fabricProvider = regexp.MustCompile(`^fabric:\w+(;\w+)*$`)
)

// checkForeign holds provider and options of an initiator that is not this
// user to what only tunes a transfer.
func checkForeign(c Config) error {
	api, _, _ := strings.Cut(c.Provider, ":")
	switch {
	case c.Provider == "socket", slices.Contains(fabricNames(), c.Provider), fabricProvider.MatchString(c.Provider):
	case api == "ucx" && ucxTransports.MatchString(c.Provider):
	default:
		return refuse("provider %.100q is not one that serve opens for others", c.Provider)
	}
	if api != "ucx" {
		return nil // CheckConfig knows all options of the others
	}
	for k, v := range c.Options {
		if err := checkUCXOption(strings.TrimPrefix(k, "UCX_"), v); err != nil {
			return err
		}
	}
	return nil
}

// ucxTuning are the settings of UCX, without "UCX_", that an initiator may give
// its target: sizes, thresholds, counts and protocols of a transfer. Not among
// them, besides all that nobody thought of: what names files, directories,
// modules, sockets, addresses and ports, what writes logs, profiles and reports,
// signals, debuggers, and what changes memory calls of the process.
var ucxTuning = regexp.MustCompile(`^(` + strings.Join([]string{
	`ERR_HANDLING`,
	`RNDV_[A-Z0-9_]+|TM_[A-Z0-9_]+`,
	`(B|Z)COPY_THRESH|BCOPY_BW|BUILTIN_MEMCPY_M(IN|AX)|NT_BUFFER_TRANSFER_MIN`,
	`SEG_SIZE|RKEY_PTR_SEG_SIZE|RMA_ZCOPY_MAX_SEG_SIZE|MIN_RNDV_CHUNK_SIZE`,
	`MAX_(EAGER|RMA|RNDV)_RAILS|MAX_HCA_PER_GPU|MAX_COMPONENT_MDS|RKEY_MPOOL_MAX_MD`,
	`MULTI_LANE_MAX_RATIO|MULTI_PATH_RATIO|NUM_EPS|NUM_PPN|RX_MPOOL_SIZES`,
	`ADDRESS_VERSION|SA_DATA_VERSION|ATOMIC_MODE|FENCE_MODE|FLUSH_WORKER_EPS|UNIFIED_MODE|USE_MT_MUTEX`,
	`ADAPTIVE_PROGRESS|DYNAMIC_TL_[A-Z_]+|KEEPALIVE_(INTERVAL|NUM_EPS)|RESOLVE_REMOTE_EP_ID|PREFER_OFFLOAD`,
	`PROTO_(ENABLE|OVERHEAD|REQUEST_RESET|INDIRECT_ID)|SELECT_DISTANCE_MD|DISTANCE_(BW|LAT)|TOPO_PRIO`,
	`TCP_((RX|TX)_(SEG_SIZE|MAX_BUFS|BUFS_GROW|GROW_FACTOR|MAX_CHUNK_SIZE)|SNDBUF|RCVBUF|NODELAY|MAX_(IOV|POLL|BW|NUM_EPS|CONN_RETRIES)` +
		`|SENDV_THRESH|PUT_ENABLE|CONN_NB|SYN_CNT|KEEP(CNT|IDLE|INTVL))`,
	`(RC|DC|UD|SRD)_[A-Z0-9_]+|GGA_MLX5_[A-Z0-9_]+`,
	`(IB|GGA)_(ETH_PAUSE_ON|GID_INDEX|GPU_DIRECT_RDMA|INDIRECT_ATOMIC|MAX_IDLE_RKEY_COUNT|MEM_REG_[A-Z]+|MLX5_[A-Z_]+|NUM_PATHS|ODP_[A-Z_]+` +
		`|PCI_[A-Z_]+|PREFER_NEAREST_DEVICE|REG_(MT_[A-Z]+|RETRY_CNT|METHODS)|(RX|TX)_[A-Z0-9_]+|SL|SMKEY_BLOCK_SIZE|SUBNET_PREFIX|TRAFFIC_CLASS)`,
	`(POSIX|SYSV|XPMEM)_(BW|ERROR_HANDLING|FIFO_[A-Z_]+|MAX_NUM_EPS|(RECV|SEND)_OVERHEAD|RX_[A-Z_]+|SEG_SIZE|SHM_MIN_SIZE)`,
	`(CMA|KNEM)_(BW|MAX_IOV|MAX_NUM_EPS|SEG_SIZE|TX_[A-Z_]+)|SELF_(SEG_SIZE|MAX_NUM_EPS)`,
	`(CUDA|ROCM|ZE)_(COPY|IPC)_[A-Z0-9_]+|GDR_COPY_[A-Z0-9_]+`,
}, "|") + `)$`)

// rdmaPorts are network devices that are not IP interfaces. Of UCX_NET_DEVICES an
// initiator may give those only, and nothing listens on IP then; without it each
// side makes the list of its own devices and its own address (ucxDevices).
var rdmaPorts = regexp.MustCompile(`^\w+:\d+(,\w+:\d+)*$`)

var ucxValue = regexp.MustCompile(`^[\w.,:+^~*%=-]*$`)

func checkUCXOption(key, value string) error {
	switch {
	case key == "NET_DEVICES" && rdmaPorts.MatchString(value):
		return nil
	case key == "NET_DEVICES":
		return refuse("UCX_NET_DEVICES=%.100q: serve takes ports of RDMA devices (mlx5_0:1) from an initiator; its IP interface is the one on the route (--bind)", value)
	case !ucxTuning.MatchString(key):
		return refuse("UCX_%.100s is not a setting that an initiator may give serve: leave it out, or set it in the environment of serve (docs/serve.md lists those that pass)", key)
	case !ucxValue.MatchString(value):
		return refuse("UCX_%s=%.100q: the value has characters that serve does not take from an initiator", key, value)
	}
	return nil
}

// Register registers a buffer with an endpoint, once: the initiator's own, or one
// that was lent to the side under that number.
func (s *Served) Register(ctx context.Context, r RegisterRequest) (RegisterReply, error) {
	e, err := s.endpoint(r.Endpoint)
	if err != nil {
		return RegisterReply{}, err
	}
	if e.registered {
		return RegisterReply{}, refuse("endpoint %d has its region already", r.Endpoint)
	}
	n, own := s.buffers[r.Buffer]
	if !own {
		if !s.Side.buffers[r.Buffer].lent {
			return RegisterReply{}, refuse("buffer %d does not exist", r.Buffer)
		}
		n = r.Buffer
	}
	rep, err := s.Side.Register(ctx, RegisterRequest{e.id, n})
	e.registered = err == nil
	return rep, err
}

// Connect connects a registered endpoint, once.
func (s *Served) Connect(ctx context.Context, r ConnectRequest) (ConnectReply, error) {
	e, err := s.endpoint(r.Endpoint)
	switch {
	case err != nil:
		return ConnectReply{}, err
	case !e.registered || e.connected:
		return ConnectReply{}, refuse("endpoint %d: want one connection, after its registration", r.Endpoint)
	case len(r.Address) > maxAddress:
		return ConnectReply{}, refuse("an address of %d bytes: want at most %d", len(r.Address), maxAddress)
	}
	r.Endpoint = e.id
	rep, err := s.Side.Connect(ctx, r)
	e.connected = err == nil
	return rep, err
}

// Plan checks a condition before it is laid out.
func (s *Served) Plan(ctx context.Context, r PlanRequest) (PlanReply, error) {
	e, err := s.endpoint(r.Endpoint)
	if err != nil {
		return PlanReply{}, err
	}
	if err := checkID("plan", r.Plan); err != nil {
		return PlanReply{}, err
	}
	switch {
	case r.Lanes != e.lanes:
		return PlanReply{}, refuse("a plan for %d lanes, this side's endpoint has %d", r.Lanes, e.lanes)
	case s.laid[r.Plan] != nil:
		return PlanReply{}, refuse("plan %d exists already", r.Plan)
	case s.session().plans >= maxPlans:
		return PlanReply{}, refuse("%d plans: want no more at a time", maxPlans)
	case !knownOp(r.Op):
		return PlanReply{}, refuse("operation %v: want read, write or send", r.Op)
	case r.Chunk > maxChunk:
		return PlanReply{}, refuse("chunk %d: want at most %d bytes", r.Chunk, uint64(maxChunk))
	case len(r.Name) > maxName:
		return PlanReply{}, refuse("a plan's name of %d bytes: want at most %d", len(r.Name), maxName)
	}
	r.KV.MaxBytes, r.KV.MaxDescs = 0, 0 // limits are this side's
	x, _, err := r.extent()
	if err != nil {
		return PlanReply{}, refuse("plan %d: %w", r.Plan, err)
	}
	n, err := checkPieces(x.bytes, x.count, r.Lanes, r.Chunk)
	if err != nil {
		return PlanReply{}, err
	}
	c := s.session()
	if c.pieces+n > maxSessionPieces {
		return PlanReply{}, fmt.Errorf("%w: up to %d operations in the plans of a session, %d are allowed", ErrTooLarge, c.pieces+n, maxSessionPieces)
	}
	p := &servedPlan{s.number(), r.Endpoint, n}
	id := r.Plan
	r.Plan, r.Endpoint = p.id, e.id
	rep, err := s.Side.Plan(ctx, r)
	if err != nil {
		return rep, err
	}
	if s.laid == nil {
		s.laid = map[int]*servedPlan{}
	}
	s.laid[id] = p
	c.pieces += n
	c.plans++
	return rep, nil
}

// Arm readies a connected endpoint that is not armed.
func (s *Served) Arm(ctx context.Context, r ArmRequest) (UsageReply, error) {
	p, e, err := s.planned(r.Plan)
	switch {
	case err != nil:
		return UsageReply{}, err
	case r.Iters < 1 || r.Iters > MaxIterations:
		return UsageReply{}, refuse("%d transfers: want 1 to %d", r.Iters, MaxIterations)
	case e.armed:
		return UsageReply{}, refuse("plan %d: its endpoint is armed already", r.Plan)
	}
	rep, err := s.Side.Arm(ctx, ArmRequest{p.id, r.Iters})
	e.armed = err == nil
	e.used = e.used || e.armed
	return rep, err
}

// Settle ends what Arm began.
func (s *Served) Settle(ctx context.Context, r SettleRequest) (UsageReply, error) {
	p, e, err := s.planned(r.Plan)
	if err != nil {
		return UsageReply{}, err
	}
	if !e.used {
		return UsageReply{}, refuse("plan %d: its endpoint has never been armed", r.Plan)
	}
	e.armed = false // a second Settle only says what went wrong
	return s.Side.Settle(ctx, SettleRequest{p.id})
}

// Fill writes a plan's payload.
func (s *Served) Fill(ctx context.Context, r PayloadRequest) (Done, error) {
	p, _, err := s.planned(r.Plan)
	if err != nil {
		return Done{}, err
	}
	return s.Side.Fill(ctx, PayloadRequest{p.id, r.Key})
}

// Poison overwrites what a transfer will write.
func (s *Served) Poison(ctx context.Context, r PayloadRequest) (Done, error) {
	p, _, err := s.planned(r.Plan)
	if err != nil {
		return Done{}, err
	}
	return s.Side.Poison(ctx, PayloadRequest{p.id, r.Key})
}

// Check verifies a plan's payload.
func (s *Served) Check(ctx context.Context, r PayloadRequest) (CheckReply, error) {
	p, _, err := s.planned(r.Plan)
	if err != nil {
		return CheckReply{}, err
	}
	return s.Side.Check(ctx, PayloadRequest{p.id, r.Key})
}

// Drop frees a plan that is not armed.
func (s *Served) Drop(ctx context.Context, r DropRequest) (Done, error) {
	p, e, err := s.planned(r.Plan)
	if err != nil {
		return Done{}, err
	}
	if e.armed {
		return Done{}, refuse("plan %d: its endpoint is armed", r.Plan)
	}
	s.forget(r.Plan, p)
	return s.Side.Drop(ctx, DropRequest{p.id})
}

// forget takes a plan out of the account.
func (s *Served) forget(id int, p *servedPlan) {
	s.session().pieces -= p.pieces
	s.session().plans--
	delete(s.laid, id)
}

// Shut closes one endpoint and frees its plans.
func (s *Served) Shut(_ context.Context, r EndpointRequest) (Done, error) {
	if _, err := s.endpoint(r.Endpoint); err != nil {
		return Done{}, err
	}
	return Done{}, s.shut(r.Endpoint)
}

func (s *Served) shut(id int) error {
	e := s.opened[id]
	delete(s.opened, id)
	s.session().endpoints--
	s.session().lanes -= e.lanes
	for n, p := range s.laid {
		if p.endpoint == id {
			s.forget(n, p)
		}
	}
	_, err := s.Side.Shut(context.Background(), EndpointRequest{e.id})
	return err
}
