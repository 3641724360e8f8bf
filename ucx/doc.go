// Package ucx binds UCX's UCP layer for bulk transfers: one-sided put and get,
// tagged send, and what a measurement needs to know of them.
//
// The library is loaded at run time ([Load]); its headers are needed only to
// build. A [Context] holds the settings and one registered [Memory]; each
// [Worker] with its endpoint is a lane of the measuring loop in package
// loop. From Group.Start to Group.Close a worker belongs to its lane's
// thread: of its methods only Describe may be called then.
//
//	lib, err := ucx.Load("")
//	ctx, err := lib.Open(ucx.Config{TLS: "tcp"})
//	m, err := ctx.Register(buf.Address(), uint64(buf.Len()), ucx.HostMemory, -1)
//	w, err := ctx.NewWorker(m)
//	addr, err := w.Address() // to the peer, with m.Key() and buf.Address()
//	err = w.Connect(peerAddr, peerKey, peerBase, peerLen, peerLabel)
//	group, err := loop.NewGroup([]loop.Lane{w.Lane()}, loop.Config{…})
//
// Objects are closed children first: group, workers, memory, context.
//
// UCX writes its log to standard output. This package keeps its lines for its
// errors instead; only a user who sets UCX_LOG_LEVEL sees them, on standard
// error unless UCX_LOG_FILE says otherwise.
package ucx
