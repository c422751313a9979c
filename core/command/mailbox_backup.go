package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/stagecoach-mta/stagecoach/core/pipeline"
	v1 "github.com/stagecoach-mta/stagecoach/sdk/proto/v1"
	"github.com/stagecoach-mta/stagecoach/sdk/storage"
)

const (
	// backupList says what a backup is; it is written last, so that one that was cut
	// off has none.
	backupList = "stagecoach-backup.json"
	// backupStore is the folder of what the storage keeps.
	backupStore = "store"
)

// backupInfo is the list in a backup.
type backupInfo struct {
	Storage string    `json:"storage"`
	Plugin  string    `json:"plugin"`
	Taken   time.Time `json:"taken"`
	Files   int64     `json:"files"`
	Bytes   int64     `json:"bytes"`
}

func (a *App) mailboxBackup() *cobra.Command {
	var (
		d      door
		to     string
		asJSON bool
	)
	c := &cobra.Command{
		Use: "backup --to DIR", Short: "Copy all that a storage keeps, as it is at one moment, while it serves", Args: cobra.NoArgs,
		Long: `Copy all that a storage keeps into a new folder, as it is at one moment, while it serves: mail,
UIDs, flags and counters agree. On the same file system the files are links, which take no room
until the mail is removed, and are lost with that disk: copy the folder elsewhere (rsync, tar),
or name one on another disk. The search index is left out, and made anew after a restore.

"stagecoach mailbox restore" puts a backup back.`,
		Example: "  stagecoach mailbox backup --to /backup/mail-monday",
		RunE: a.inside(&d, func(cmd *cobra.Command, _ []string) (err error) {
			if to == "" {
				return &exit{ExitUsage, errors.New("where to? Say --to DIR, a folder that is not there yet")}
			}
			st, err := d.one()
			if err != nil {
				return err
			}
			if _, err := os.Lstat(to); err == nil {
				return fmt.Errorf("%s is there already: name a new folder, or remove it", to)
			}
			s := d.storage(st).(storage.Backuper)
			r, err := s.Backup(cmd.Context(), &v1.BackupRequest{})
			if err != nil {
				return unsupported(err, st.Instance, "cannot be backed up")
			}
			defer func() {
				_, left := s.Backup(context.WithoutCancel(cmd.Context()), &v1.BackupRequest{Remove: true})
				if err == nil {
					err = left
				}
			}()
			info := backupInfo{Storage: st.Instance, Plugin: st.Plugin, Taken: time.Now().UTC().Truncate(time.Second)}
			info.Files, info.Bytes, err = copyTree(cmd.Context(), r.GetPath(), filepath.Join(to, backupStore), true)
			if err == nil {
				err = writeDurably(filepath.Join(to, backupList), info)
			}
			if err != nil {
				return fmt.Errorf("%w; %s is no whole backup: remove it", err, to)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), info)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is in %s: %s, %s.\n", st.Instance, to, count(info.Files, "file"), bytesOf(info.Bytes))
			return nil
		}),
	}
	d.flags(c)
	c.Flags().StringVar(&to, "to", "", "the folder that is made")
	jsonFlag(c, &asJSON)
	return c
}

func (a *App) mailboxRestore() *cobra.Command {
	var (
		src       source
		from, ref string
	)
	c := &cobra.Command{
		Use: "restore --from DIR", Short: "Put a backup in the place of a storage of a server that is stopped", Args: cobra.NoArgs,
		Long: `Put a backup in the place of what a storage keeps. The server must be stopped. What is there is
kept beside it, under the same name with .before-TIME. All accounts are then as they were when the
backup was taken, with the same UIDs and UIDVALIDITY, so that mail programs keep what they have;
mail that came since is in the folder that was kept.`,
		Example: "  stagecoach mailbox restore --from /backup/mail-monday -c /etc/stagecoach",
		RunE: doUntilSignal(func(cmd *cobra.Command, _ []string) error {
			if from == "" {
				return &exit{ExitUsage, errors.New("from where? Say --from DIR, which `stagecoach mailbox backup` made")}
			}
			info, err := readBackup(from)
			if err != nil {
				return err
			}
			if ref == "" {
				ref = info.Storage
			}
			cfg, err := a.load(cmd, src)
			if err != nil {
				return err
			}
			in := cfg.Instance(ref)
			if in == nil || in.Kind != v1.Kind_KIND_STORAGE {
				return fmt.Errorf("the backup is of %s, and the configuration has no storage of that name: say which with --storage", ref)
			}
			if in.Plugin != info.Plugin {
				return fmt.Errorf("the backup is of a storage %q, and %s is a storage %q", info.Plugin, ref, in.Plugin)
			}
			if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
				return err
			}
			lock, err := pipeline.LockDir(cfg.DataDir)
			if err != nil {
				return err
			}
			defer lock.Close()
			kept, err := restore(cmd.Context(), from, filepath.Join(cfg.DataDir, "plugins", ref), time.Now())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is as it was at %s.\n", ref, info.Taken.Format(time.RFC3339))
			if kept != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "What was there is kept in %s.\n", kept)
			}
			return nil
		}),
	}
	src.flags(c)
	c.Flags().StringVar(&from, "from", "", "the folder of the backup")
	c.Flags().StringVar(&ref, "storage", "", "the storage whose place it takes, if it is not the one of that name")
	return c
}

func readBackup(dir string) (info backupInfo, err error) {
	b, err := os.ReadFile(filepath.Join(dir, backupList))
	if errors.Is(err, os.ErrNotExist) {
		return info, fmt.Errorf("%s is no backup that is whole: it has no %s", dir, backupList)
	}
	if err == nil {
		err = json.Unmarshal(b, &info)
	}
	return info, err
}

// restore copies the backup beside place, and then exchanges the two. Links would be
// shared with the backup, which a server must not write to.
func restore(ctx context.Context, from, place string, now time.Time) (kept string, err error) {
	fresh := place + ".restore"
	if err := os.RemoveAll(fresh); err != nil {
		return "", err
	}
	if _, _, err := copyTree(ctx, filepath.Join(from, backupStore), fresh, false); err != nil {
		return "", errors.Join(err, os.RemoveAll(fresh))
	}
	if err := ownLike(fresh, filepath.Dir(filepath.Dir(place))); err != nil {
		return "", err
	}
	if _, err := os.Lstat(place); err == nil {
		kept = place + ".before-" + now.UTC().Format("20060102T150405Z")
		if err := os.Rename(place, kept); err != nil {
			return "", err
		}
	}
	if err := os.Rename(fresh, place); err != nil {
		return kept, err
	}
	return kept, syncFolder(filepath.Dir(place))
}

// ownLike gives a tree to the owner of a folder, when root makes what the server's
// user must have.
func ownLike(tree, folder string) error {
	fi, err := os.Stat(folder)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || st.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, int(st.Uid), int(st.Gid))
		}
		return err
	})
}

// copyTree copies a folder of folders and files, durably; links: files become links
// where that is possible.
func copyTree(ctx context.Context, from, to string, links bool) (files, size int64, err error) {
	err = filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(dst, 0o700)
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() {
			return fmt.Errorf("%s is no file", path)
		}
		files, size = files+1, size+fi.Size()
		if links && os.Link(path, dst) == nil {
			return nil
		}
		return copyFile(path, dst)
	})
	if err != nil {
		return files, size, err
	}
	return files, size, filepath.WalkDir(to, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return syncFolder(path)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

func writeDurably(path string, v any) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = printJSON(f, v)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), syncFolder(filepath.Dir(path)))
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
